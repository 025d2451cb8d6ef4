"""Tiny models, made once a run."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.brain.tiny_models import write_qwen3, write_qwen3_omni


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `text` and `omni` (random weights), `text-chain` and `omni-chain` (known answers)."""
    folder = tmp_path_factory.mktemp("models")
    for chain in (False, True):
        write_qwen3(folder / f"text{'-chain' * chain}", chain)
        write_qwen3_omni(folder / f"omni{'-chain' * chain}", chain)
    return folder
