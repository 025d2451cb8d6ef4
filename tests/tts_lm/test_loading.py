"""Checkpoints: official files load unconverted, and what cannot be served is refused with a sentence that names it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from cli.checkpoint.random import write_random
from common.errors import MeshError, Overloaded
from services.tts_lm import load
from services.tts_lm.engine import EngineOptions
from services.tts_lm.load import open_model
from services.tts_lm.model.checkpoint import locate
from services.tts_lm.model.config import CheckpointError, load_config
from services.tts_lm.model.weights import ModelWeights, load_weights


@pytest.fixture(scope="module")
def official(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_random(tmp_path_factory.mktemp("official"), "tiny", "base", 0)


@pytest.fixture
def copy(official: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(official, tmp_path / "copy"))


def weights_of(directory: Path) -> ModelWeights:
    return load_weights(directory, load_config(directory), torch.float32, torch.device("cpu"))


def flat(weights: ModelWeights) -> torch.Tensor:
    stack = [t.flatten() for layer in weights.talker.layers for t in vars(layer).values()]
    return torch.cat([*stack, weights.frame_table.flatten(), weights.predictor_heads[-1].flatten()])


def test_shards_load_as_the_single_file_does(official: Path, copy: Path) -> None:
    tensors = load_file(copy / "model.safetensors")
    names = sorted(tensors)
    parts = {"model-00001-of-00002.safetensors": names[::2], "model-00002-of-00002.safetensors": names[1::2]}
    for file, members in parts.items():
        save_file({name: tensors[name] for name in members}, copy / file)
    index = {"weight_map": {name: file for file, members in parts.items() for name in members}}
    (copy / "model.safetensors.index.json").write_text(json.dumps(index))
    (copy / "model.safetensors").unlink()

    assert torch.equal(flat(weights_of(copy)), flat(weights_of(official)))


def edit(directory: Path, change: Callable[[dict[str, Any]], None], file: str = "config.json") -> None:
    value = json.loads((directory / file).read_text())
    change(value)
    (directory / file).write_text(json.dumps(value))


def retensor(directory: Path, change: Callable[[dict[str, torch.Tensor]], None]) -> None:
    tensors = load_file(directory / "model.safetensors")
    change(tensors)
    save_file(tensors, directory / "model.safetensors")


def cut(directory: Path, keep: float) -> None:
    data = (directory / "model.safetensors").read_bytes()
    (directory / "model.safetensors").write_bytes(data[: int(len(data) * keep)])


NORM = "talker.model.norm.weight"
FAULTS: dict[str, tuple[Callable[[Path], object], str]] = {
    "a missing tensor is named": (lambda d: retensor(d, lambda t: t.pop(NORM)), f"missing: {NORM}"),
    "a surplus tensor is named": (
        lambda d: retensor(d, lambda t: t.update(extra=torch.zeros(1))),
        "not known: extra",
    ),
    "a wrong shape is named": (
        lambda d: retensor(d, lambda t: t.update({NORM: torch.zeros(3)})),
        f"{NORM} is [3], config.json implies [64]",
    ),
    "a truncated file": (lambda d: cut(d, 0.7), "truncated or corrupt"),
    "a file cut inside its header": (lambda d: cut(d, 0.001), "truncated or corrupt"),
    "an empty file": (lambda d: cut(d, 0), "truncated or corrupt"),
    "a file that is something else": (
        lambda d: (d / "model.safetensors").write_bytes(b"<html>not found</html>" * 99),
        "truncated or corrupt",
    ),
    "no weights": (lambda d: (d / "model.safetensors").unlink(), "has no model.safetensors"),
    "no config": (lambda d: (d / "config.json").unlink(), "config.json is missing"),
    "a config that is no JSON": (lambda d: (d / "config.json").write_text("{"), "cannot be read as JSON"),
    "another model": (lambda d: edit(d, lambda c: c.update(model_type="qwen3")), "only qwen3_tts can be served"),
    "a 25 Hz talker": (
        lambda d: edit(d, lambda c: c.update(tokenizer_type="qwen3_tts_tokenizer_25hz")),
        "is a 25 Hz checkpoint; only the 12 Hz family",
    ),
    "a 25 Hz codec": (
        lambda d: edit(d, lambda c: c.update(model_type="qwen3_tts_tokenizer_25hz"), "speech_tokenizer/config.json"),
        "is a 25 Hz checkpoint; only the 12 Hz family",
    ),
    "a config without a field": (lambda d: edit(d, lambda c: c.pop("tts_pad_token_id")), "has no 'tts_pad_token_id'"),
    "an id outside its table": (
        lambda d: edit(d, lambda c: c["talker_config"].update(codec_bos_id=99_999)),
        "codec id 99999 of 'bos' is outside the vocabulary",
    ),
    "no vocabulary": (lambda d: (d / "vocab.json").unlink(), "vocab.json is missing"),
    "merges of another vocabulary": (
        lambda d: (d / "merges.txt").write_text("#version: 0.2\nqz zq\n"),
        "which vocab.json lacks",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_bad_checkpoint_is_refused_with_a_sentence(copy: Path, fault: str) -> None:
    damage, sentence = FAULTS[fault]
    damage(copy)

    with pytest.raises(CheckpointError) as refused:
        open_model(EngineOptions(str(copy), slot_count=1, kv_positions=64))

    assert sentence in refused.value.message


def test_dimensions_and_ids_come_from_the_checkpoint_alone(tmp_path: Path) -> None:
    overrides = {
        "talker_config": {"hidden_size": 48, "num_hidden_layers": 2, "num_code_groups": 4, "codec_bos_id": 200},
        "code_predictor_config": {"num_hidden_layers": 1},
    }
    directory = write_random(tmp_path, "tiny", "custom_voice", 0, **overrides, codebook_size=32)
    edit(directory, lambda c: c.update(decode_upsample_rate=960), "speech_tokenizer/config.json")

    config = load_config(directory)
    model = open_model(EngineOptions(str(directory), slot_count=1, kv_positions=64))

    assert (config.codebook_count, config.codebook_size, config.codec.bos) == (4, 32, 200)
    assert (config.frame_rate_hz, config.samples_per_frame) == (25.0, 960)
    assert model.config == config


def test_too_little_memory_is_said_before_loading(official: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Overloaded, match="GiB are free on cpu; take fewer slots"):
        open_model(EngineOptions(str(official), slot_count=4, kv_positions=1 << 30))


def test_a_name_that_is_neither_a_directory_nor_a_hub_id_is_refused() -> None:
    with pytest.raises(CheckpointError, match="there is no directory 'nowhere'"):
        locate("nowhere")


def test_a_hub_id_is_served_from_the_cache_without_a_network(
    official: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The cache's layout is the hub library's own; a socket that were opened would find no host."""
    import huggingface_hub.constants as constants

    repository = tmp_path / "models--someone--voice"
    snapshot = repository / "snapshots" / "abc123"
    snapshot.parent.mkdir(parents=True)
    shutil.copytree(official, snapshot)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("abc123")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))

    assert locate("someone/voice", local_files_only=True) == snapshot
    with pytest.raises(CheckpointError, match="not in the local hub cache, and downloading is switched off"):
        locate("someone/other", local_files_only=True)


def test_a_hub_that_cannot_be_reached_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub.constants as constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(CheckpointError, match="someone/voice"):
        locate("someone/voice")


def test_an_unknown_device_is_refused(official: Path) -> None:
    assert not torch.cuda.is_available() or load._device("cuda")
    with pytest.raises(MeshError, match="there is no device 'gpu'"):
        open_model(EngineOptions(str(official), device="gpu"))
