"""What a checkpoint directory is: model, dimensions, parameters by part, voices, languages, and whether it is whole.

Reads JSON files and safetensors headers only, so it answers for a 4 GB model in milliseconds. What cannot be told
raises CheckpointUnreadable with a sentence a person can act on.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cli.checkpoint import layout, official
from cli.checkpoint.safetensors_file import DamagedFile, TensorEntry, read_header

Shapes = Mapping[str, tuple[int, ...]]


class CheckpointUnreadable(ValueError):
    """The directory is no checkpoint that can be served; the message says why."""


@dataclass(frozen=True)
class WeightReport:
    """One set of weights against the table its configuration asks for."""

    tensor_count: int
    parameter_count: int
    file_bytes: int
    dtypes: dict[str, int]
    parameters: dict[str, int]
    missing: list[str] = field(default_factory=list)
    surplus: list[str] = field(default_factory=list)
    misshapen: list[str] = field(default_factory=list)

    @property
    def whole(self) -> bool:
        return not (self.missing or self.surplus or self.misshapen)


@dataclass(frozen=True)
class Inspection:
    """All that is told of a checkpoint."""

    directory: str
    published_as: str | None
    model_type: str
    model_size: str | None
    dimensions: dict[str, int]
    voices: dict[str, str | None]
    languages: list[str]
    supports_instruct: bool
    supports_clone: bool
    model: WeightReport
    codec: WeightReport
    slot_memory: dict[str, int]

    @property
    def whole(self) -> bool:
        return self.model.whole and self.codec.whole


def inspect(directory: str | Path) -> Inspection:
    """Read a directory in the official layout; raises CheckpointUnreadable when it is none."""
    path = Path(directory)
    if not path.is_dir():
        raise CheckpointUnreadable(f"{path} is not a directory")
    config = _model_config(path)
    codec_config = _codec_config(path / "speech_tokenizer")
    try:
        expected, codec_expected = layout.model_tensors(config), layout.codec_tensors(codec_config)
        model = _weights(path, expected, layout.MODEL_PARTS)
        codec = _weights(path / "speech_tokenizer", codec_expected, layout.CODEC_PARTS)
        return _inspection(path, config, codec_config, model, codec)
    except (KeyError, TypeError) as error:
        raise CheckpointUnreadable(f"the configuration in {path} lacks or misstates {error}") from error


def kv_bytes_per_position(talker: Mapping[str, Any], item_bytes: int = 2) -> int:
    """Keys and values of one talker position; bfloat16 unless told otherwise."""
    width = talker["num_key_value_heads"] * talker["head_dim"]
    return int(talker["num_hidden_layers"] * 2 * width * item_bytes)


def codec_state_numbers(decoder: Mapping[str, Any]) -> int:
    """Numbers one stream keeps for exact incremental decoding (model document 6.2)."""
    attention = 2 * decoder["num_hidden_layers"] * decoder["num_key_value_heads"] * decoder["head_dim"]
    numbers = attention * (decoder["sliding_window"] - 1) + 2 * decoder["codebook_dim"]
    numbers += 6 * decoder["latent_dim"] * (len(decoder["upsampling_ratios"]) + 1)
    channels = decoder["decoder_dim"]
    for rate in decoder["upsample_rates"]:
        channels //= 2
        numbers += (rate + 6 + 18 + 54) * channels
    return int(numbers + 6 * channels)


def _inspection(
    path: Path, config: Mapping[str, Any], codec_config: Mapping[str, Any], model: WeightReport, codec: WeightReport
) -> Inspection:
    talker, decoder = config["talker_config"], codec_config["decoder_config"]
    dialects = talker.get("spk_is_dialect") or {}
    return Inspection(
        directory=str(path),
        published_as=_published_name(config),
        model_type=config["tts_model_type"],
        model_size=config.get("tts_model_size"),
        dimensions=_dimensions(talker, decoder, codec_config),
        voices={name: dialects.get(name) or None for name in talker.get("spk_id") or {}},
        languages=[name for name in talker["codec_language_id"] if "dialect" not in name],
        supports_instruct=config["tts_model_type"] == "voice_design"
        or (config["tts_model_type"] == "custom_voice" and config.get("tts_model_size") != "0b6"),
        supports_clone=config["tts_model_type"] == "base",
        model=model,
        codec=codec,
        slot_memory={
            "talker_kv_bytes_per_position": kv_bytes_per_position(talker),
            "talker_kv_bytes_per_minute": kv_bytes_per_position(talker) * 750,
            "codec_state_bytes": 4 * codec_state_numbers(decoder),
        },
    )


def _dimensions(talker: Mapping[str, Any], decoder: Mapping[str, Any], codec: Mapping[str, Any]) -> dict[str, int]:
    predictor = talker["code_predictor_config"]
    return {
        "talker_hidden": talker["hidden_size"],
        "talker_layers": talker["num_hidden_layers"],
        "code_predictor_hidden": predictor["hidden_size"],
        "code_predictor_layers": predictor["num_hidden_layers"],
        "codebooks": talker["num_code_groups"],
        "codebook_size": predictor["vocab_size"],
        "text_vocabulary": talker["text_vocab_size"],
        "decoder_layers": decoder["num_hidden_layers"],
        "decoder_window_frames": decoder["sliding_window"],
        "samples_per_frame": codec["decode_upsample_rate"],
        "sample_rate_hz": codec["output_sample_rate"],
    }


def _published_name(config: Mapping[str, Any]) -> str | None:
    """The published model with these very tensors, if any."""
    names: Mapping[str, str] = {"custom_voice": "CustomVoice", "voice_design": "VoiceDesign", "base": "Base"}
    model_type = config["tts_model_type"]
    if model_type not in official.MODEL_TYPES:
        raise CheckpointUnreadable(
            f"its tts_model_type is {model_type!r}: expected one of {', '.join(official.MODEL_TYPES)}"
        )
    for size in ("0.6B", "1.7B"):
        if (size, model_type) == ("0.6B", "voice_design"):
            continue  # never published
        if layout.model_tensors(config) == layout.model_tensors(official.model_config(size, model_type)):
            return f"Qwen3-TTS-12Hz-{size}-{names[model_type]}"
    return None


def _model_config(path: Path) -> dict[str, Any]:
    config = _read_json(path / "config.json")
    kind, tokenizer = config.get("model_type"), str(config.get("tokenizer_type", ""))
    if kind == "qwen3_tts_tokenizer_12hz":
        raise CheckpointUnreadable(
            f"{path} is the codec alone; name the model's directory, which holds it as speech_tokenizer/"
        )
    if "25hz" in tokenizer or "25hz" in str(kind):
        raise CheckpointUnreadable(
            f"{path} is a 25 Hz model ({tokenizer or kind}); only the 12 Hz family can be served"
        )
    if kind != "qwen3_tts":
        raise CheckpointUnreadable(f"{path} holds a model of type {kind!r}, not a Qwen3-TTS model")
    if "talker_config" not in config or "tts_model_type" not in config:
        raise CheckpointUnreadable(
            f"{path / 'config.json'} lacks talker_config or tts_model_type: it is not the official file"
        )
    return config


def _codec_config(path: Path) -> dict[str, Any]:
    config = _read_json(path / "config.json")
    kind = config.get("model_type")
    if kind == "qwen3_tts_tokenizer_25hz":
        raise CheckpointUnreadable(f"{path} is the 25 Hz codec; only the 12 Hz family can be served")
    if kind != "qwen3_tts_tokenizer_12hz":
        raise CheckpointUnreadable(f"{path} holds a codec of type {kind!r}, not the 12 Hz one")
    return config


def _read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise CheckpointUnreadable(f"{path} is missing: this is not a checkpoint in the official layout") from error
    except (ValueError, OSError) as error:
        raise CheckpointUnreadable(f"{path} cannot be read: {error}") from error
    if not isinstance(value, dict):
        raise CheckpointUnreadable(f"{path} holds {type(value).__name__}, not an object")
    return value


def _weights(path: Path, expected: Shapes, parts: Mapping[str, tuple[str, ...]]) -> WeightReport:
    files = _weight_files(path)
    entries: dict[str, TensorEntry] = {}
    try:
        for file in files:
            entries |= read_header(file)[0]
    except (DamagedFile, OSError) as error:
        raise CheckpointUnreadable(str(error)) from error
    shapes = {name: entry.shape for name, entry in entries.items()}
    dtypes: dict[str, int] = {}
    for entry in entries.values():
        dtypes[entry.dtype] = dtypes.get(entry.dtype, 0) + 1
    return WeightReport(
        tensor_count=len(entries),
        parameter_count=layout.parameter_count(shapes.values()),
        file_bytes=sum(file.stat().st_size for file in files),
        dtypes=dtypes,
        parameters=layout.parameters_by_part(shapes, parts),
        missing=sorted(expected.keys() - shapes.keys()),
        surplus=sorted(shapes.keys() - expected.keys()),
        misshapen=[
            f"{name}: {list(shapes[name])}, expected {list(shape)}"
            for name, shape in expected.items()
            if name in shapes and shapes[name] != shape
        ],
    )


def _weight_files(path: Path) -> list[Path]:
    single, index = path / "model.safetensors", path / "model.safetensors.index.json"
    if single.exists():
        return [single]
    if not index.exists():
        raise CheckpointUnreadable(f"{single} is missing: the weights were not downloaded, or lie elsewhere")
    shards = sorted(set(_read_json(index).get("weight_map", {}).values()))
    absent = [shard for shard in shards if not (path / shard).exists()]
    if absent or not shards:
        raise CheckpointUnreadable(f"{index} names {', '.join(absent) or 'no shard'}, missing from {path}")
    return [path / shard for shard in shards]
