"""One random tiny checkpoint for the whole run, and what most codec tests need of it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import torch

from cli.checkpoint.random import write_random
from common.native import compiler
from services.codec.engine import CodecEngine, EngineSettings
from services.codec.model.config import CodecConfig
from services.codec.model.decoder import Decoder
from services.codec.model.weights import load_decoder
from services.codec.native import KERNELS
from services.codec.native.snake import NativeSnake


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_random(tmp_path_factory.mktemp("codec") / "tiny", like="tiny", type="base", seed=0)


@pytest.fixture(scope="session")
def tiny_decoder(tiny: Path) -> Decoder:
    """In float64, where equality can be asked for to 1e-9."""
    return load_decoder(CodecConfig.read(tiny), device=torch.device("cpu"), dtype=torch.float64)


@pytest.fixture
async def engine(tiny: Path) -> AsyncIterator[CodecEngine]:
    running = CodecEngine(
        EngineSettings(str(tiny), slot_count=4, max_parked_states=2, max_primed_voices=2, max_queued_frames=500)
    )
    await running.start()
    yield running
    await running.close()


@pytest.fixture(scope="session")
def native_snake(tmp_path_factory: pytest.TempPathFactory) -> NativeSnake:
    """The compiled kernel: that of this user's cache, else compiled for this session."""
    if compiler() is None and KERNELS.built() is None:
        pytest.skip("the native kernels need a C++ compiler, and there is none here")
    return NativeSnake(KERNELS.built() or KERNELS.build(tmp_path_factory.mktemp("kernels")))
