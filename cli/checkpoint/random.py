"""Random checkpoints in the official layout, for tests, benchmarks and machines without weights.

The files are those of a published model, to the byte in size at the real dimensions; only the values are random and the
text vocabulary is small. They sound like noise and say so in nothing: the caller does.
"""

from __future__ import annotations

import json
import math
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from cli.checkpoint import official, safetensors_file, weights
from cli.checkpoint.layout import SPEAKER_ENCODER_DEFAULTS, codec_tensors, model_tensors
from cli.checkpoint.official import Config, ModelType, Size
from cli.checkpoint.vocabulary import write_tokenizer

FORMAT = 1
"""Raised whenever the same arguments give other bytes, so that no cache and no stored output outlives them."""

Fill = Callable[[str, tuple[int, ...]], Iterator[weights.Array]]
"""(name, shape) → float32 chunks in row-major order."""

_SECTIONS = ("talker_config", "code_predictor_config", "speaker_encoder_config", "decoder_config", "encoder_config")


def write_random(
    directory: str | Path,
    like: Size = "tiny",
    type: ModelType = "custom_voice",
    seed: int = 0,
    *,
    codebook_size: int | None = None,
    values: Callable[[int, int], Fill] = weights.values,
    **overrides: Any,
) -> Path:
    """Write a checkpoint of random weights into `directory` and return it; the same arguments give the same bytes.
    `values` draws them: `weights.quick_values` for benchmarks.

    `overrides` are dicts merged into talker_config, code_predictor_config, speaker_encoder_config, decoder_config or
    encoder_config, or plain top-level fields of config.json. Equal hidden sizes of talker and code predictor leave
    small_to_mtp_projection out. Raises ValueError for an unknown name or dimensions that do not fit together.
    """
    model, codec = configurations(like, type, codebook_size, **overrides)
    directory = Path(directory)
    speech_tokenizer = directory / "speech_tokenizer"
    speech_tokenizer.mkdir(parents=True, exist_ok=True)
    _write_json(directory / "config.json", model)
    _write_json(directory / "generation_config.json", official.GENERATION_CONFIG)
    _write_json(directory / "preprocessor_config.json", official.PREPROCESSOR_CONFIG)
    _write_json(speech_tokenizer / "config.json", codec)
    _write_json(speech_tokenizer / "configuration.json", official.CODEC_CONFIGURATION)
    _write_json(speech_tokenizer / "preprocessor_config.json", official.CODEC_PREPROCESSOR_CONFIG)
    write_tokenizer(directory, _ordinary_tokens(like), official.TINY_ORDINARY_TOKEN_COUNT)
    fill = values(seed, model["talker_config"]["codec_eos_token_id"])
    tensors = model_tensors(model)
    safetensors_file.write(directory / "model.safetensors", tensors, "BF16", fill, model_metadata(type))
    safetensors_file.write(speech_tokenizer / "model.safetensors", codec_tensors(codec), "F32", fill)
    return directory


def cached_tiny(cache: Path) -> Path:
    """The random tiny checkpoint in `cache`, written once; a half-written one is never seen under its name."""
    target = cache / f"random-tiny-{FORMAT}"
    if not (target / "model.safetensors").exists():
        draft = target.with_name(f"{target.name}.{os.getpid()}")
        write_random(draft)
        try:
            draft.rename(target)
        except OSError:  # another process was first: its files are the same bytes
            shutil.rmtree(draft)
    return target


def configurations(
    like: Size = "tiny", type: ModelType = "custom_voice", codebook_size: int | None = None, **overrides: Any
) -> tuple[Config, Config]:
    """config.json and speech_tokenizer/config.json with the overrides merged in and checked."""
    if like not in official.SIZES:
        raise ValueError(f"unknown size {like!r}: choose one of {', '.join(official.SIZES)}")
    if type not in official.MODEL_TYPES:
        raise ValueError(f"unknown type {type!r}: choose one of {', '.join(official.MODEL_TYPES)}")
    model, codec = official.model_config(like, type, codebook_size), official.codec_config(like, codebook_size)
    _merge(model, codec, overrides)
    _check(model, codec)
    return model, codec


def model_metadata(type: ModelType) -> Mapping[str, str] | None:
    """The published CustomVoice and VoiceDesign files carry a metadata entry, the Base files do not."""
    return None if type == "base" else {"format": "pt"}


def _merge(model: Config, codec: Config, overrides: Mapping[str, Any]) -> None:
    """Overrides, then the fields that follow from others unless they were given themselves."""
    given = {name: dict(overrides.get(name) or {}) for name in _SECTIONS}
    _refuse_unknown(given, model, codec)
    for name in overrides.keys() - given.keys():
        if name not in model:
            raise ValueError(f"config.json has no field {name!r} that could be overridden")
        model[name] = overrides[name]
    talker, decoder, encoder = model["talker_config"], codec["decoder_config"], codec["encoder_config"]
    predictor, groups = talker["code_predictor_config"], given["talker_config"].get("num_code_groups", 16)
    if "head_dim" in given["talker_config"]:
        talker["rope_scaling"] = _rope_scaling(given["talker_config"]["head_dim"])
    talker |= given["talker_config"]
    predictor |= {"num_code_groups": groups} | given["code_predictor_config"]
    predictor["layer_types"] = ["full_attention"] * predictor["num_hidden_layers"]
    decoder |= {"num_quantizers": groups} | given["decoder_config"]
    codec["encoder_valid_num_quantizers"] = groups
    encoder |= given["encoder_config"]
    encoder["upsample_groups"] = encoder["hidden_size"]  # unused here, but the reference builds a layer of it
    if "speaker_encoder_config" in model:
        model["speaker_encoder_config"] |= {"enc_dim": talker["hidden_size"]} | given["speaker_encoder_config"]
    elif given["speaker_encoder_config"]:
        raise ValueError("only a base checkpoint has a speaker encoder to override")


def _refuse_unknown(given: Mapping[str, Mapping[str, Any]], model: Config, codec: Config) -> None:
    """A misspelt field must not become a checkpoint of other dimensions than asked for."""
    talker = model["talker_config"]
    known: dict[str, Mapping[str, Any]] = {
        "talker_config": talker,
        "code_predictor_config": talker["code_predictor_config"],
        "speaker_encoder_config": {"enc_dim": 0, "enc_dilations": [], "sample_rate": 0}
        | dict(SPEAKER_ENCODER_DEFAULTS),
        "decoder_config": codec["decoder_config"],
        "encoder_config": codec["encoder_config"],
    }
    unknown = [
        f"{section}.{name}" for section, fields in given.items() for name in fields if name not in known[section]
    ]
    if unknown:
        raise ValueError(f"the official configuration has no field {', '.join(unknown)}")


def _rope_scaling(head_dim: int) -> Config:
    """The published sections [24, 20, 20] of head_dim 128, in proportion."""
    side = head_dim // 2 * 20 // 64
    return {"interleaved": True, "mrope_section": [head_dim // 2 - 2 * side, side, side], "rope_type": "default"}


def _check(model: Config, codec: Config) -> None:
    """Raise ValueError with every rule that these dimensions break."""
    talker, decoder = model["talker_config"], codec["decoder_config"]
    predictor = talker["code_predictor_config"]
    speaker = model.get("speaker_encoder_config", {"enc_dim": talker["hidden_size"]})
    rates = (*decoder["upsample_rates"], *decoder["upsampling_ratios"])
    groups = {talker["num_code_groups"], predictor["num_code_groups"], decoder["num_quantizers"]}
    rules = {
        "the codec vocabulary is the codebook and 1024 control rows": talker["vocab_size"]
        == predictor["vocab_size"] + official.CONTROL_ROW_COUNT,
        "decoder and code predictor share the codebook size": decoder["codebook_size"] == predictor["vocab_size"],
        "talker, code predictor and decoder have the same number of codebooks": len(groups) == 1,
        "the decoder's rates multiply to decode_upsample_rate": math.prod(rates) == codec["decode_upsample_rate"],
        "decoder_dim can be halved in every block": decoder["decoder_dim"] % 2 ** len(decoder["upsample_rates"]) == 0,
        "the text vocabulary holds the special ids": max(model[name] for name in official.TEXT_IDS)
        < talker["text_vocab_size"],
        "the speaker vector is as wide as the talker": speaker["enc_dim"] == talker["hidden_size"],
    }
    broken = [rule for rule, holds in rules.items() if not holds]
    if broken:
        raise ValueError("these dimensions do not fit together: " + "; ".join(broken))


def _ordinary_tokens(like: Size) -> int:
    return official.TINY_ORDINARY_TOKEN_COUNT if like == "tiny" else official.REAL_ORDINARY_TOKEN_COUNT


def _write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, ensure_ascii=False, indent=2), encoding="utf-8")
