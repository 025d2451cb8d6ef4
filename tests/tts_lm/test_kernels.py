"""Which kernels run: what is asked for, what was measured, what is there."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from common.errors import InvalidRequest
from services.tts_lm import kernels
from services.tts_lm.kernels import Choice, choose, read_measured, write_measured
from services.tts_lm.load import open_model
from services.tts_lm.model.config import CheckpointError, ModelConfig, load_config
from services.tts_lm.native.library import Library
from services.tts_lm.types import EngineOptions

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


@pytest.fixture
def config(tiny: Path) -> ModelConfig:
    return load_config(tiny)


def test_without_a_built_library_torch_computes(config: ModelConfig) -> None:
    assert choose(config, "float32", CPU, "auto", None) == Choice("torch", 1)
    with pytest.raises(InvalidRequest, match="voicemesh tune"):
        choose(config, "float32", CPU, "native", None)


def test_a_built_library_is_taken_unless_something_else_was_measured_or_asked_for(
    config: ModelConfig, library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kernels, "KERNELS", SimpleNamespace(built=lambda: library.path))
    assert choose(config, "float32", CPU, "auto", 3) == Choice("native", 3)
    assert choose(config, "float32", CPU, "torch", None).kernels == "torch"
    write_measured(config, "float32", Choice("torch", 5))
    assert choose(config, "float32", CPU, "auto", None) == Choice("torch", 5)
    assert choose(config, "float32", CPU, "native", 2) == Choice("native", 2)
    assert choose(config, "bfloat16", CPU, "auto", None).kernels == "native"  # another dtype, another measurement


def test_what_was_measured_is_kept_beside_other_measurements(config: ModelConfig) -> None:
    write_measured(config, "float32", Choice("native", 2))
    path = write_measured(config, "int8", Choice("torch", 4))
    assert read_measured(config, "float32") == Choice("native", 2)
    assert read_measured(config, "int8") == Choice("torch", 4)
    path.write_text("{broken")
    assert read_measured(config, "int8") is None
    write_measured(config, "int8", Choice("torch", 4))
    assert read_measured(config, "int8") == Choice("torch", 4)


def test_the_engine_says_its_dtype_and_auto_never_takes_a_smaller_one(tiny: Path) -> None:
    threads = torch.get_num_threads()
    try:
        for asked, told in (("auto", "float32"), ("int8", "int8")):
            opened = open_model(EngineOptions(str(tiny), dtype=asked, slot_count=1, kv_positions=256))  # type: ignore[arg-type]
            assert opened.dtype == told
    finally:
        torch.set_num_threads(threads)


def test_int8_is_refused_where_it_cannot_run(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    with pytest.raises(CheckpointError, match="int8 weights are for the CPU"):
        open_model(EngineOptions(str(tiny), device="cuda", dtype="int8"))
