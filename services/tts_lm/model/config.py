"""config.json and generation_config.json of a checkpoint as frozen values.

Every dimension and id comes from the files; there are no defaults for what a model is. Refuses to know tensors.
Source: model document sections 1 and 2 (qwen-tts 0.1.1).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.errors import MeshError, NotReady

SUPPRESSED_TAIL = 1024
"""Ids at the end of the codec vocabulary that are never sampled, end of speech excepted (reference, 5.2c)."""


class CheckpointError(NotReady):
    """The checkpoint cannot be served; the message says what is wrong with which file."""

    default_reason = "NOT_READY"


@dataclass(frozen=True)
class BlockConfig:
    """A stack of Qwen3 layers."""

    hidden_size: int
    intermediate_size: int
    layer_count: int
    head_count: int
    kv_head_count: int
    head_size: int
    rope_theta: float
    norm_eps: float
    max_positions: int


@dataclass(frozen=True)
class CodecIds:
    """Control ids of the codec vocabulary."""

    pad: int
    bos: int
    eos: int
    think: int
    nothink: int
    think_bos: int
    think_eos: int


@dataclass(frozen=True)
class GenerationDefaults:
    """How the checkpoint wants to be sampled; `top_k` 0 and `top_p` 1 switch the filter off."""

    do_sample: bool = True
    temperature: float = 0.9
    top_k: int = 50
    top_p: float = 1.0
    repetition_penalty: float = 1.05
    predictor_do_sample: bool = True
    predictor_temperature: float = 0.9
    predictor_top_k: int = 50
    predictor_top_p: float = 1.0
    max_new_tokens: int = 2048


@dataclass(frozen=True)
class ModelConfig:
    """Everything a checkpoint says about itself."""

    model_id: str
    model_type: str
    model_size: str
    talker: BlockConfig
    predictor: BlockConfig
    text_vocab_size: int
    text_hidden_size: int
    codec_vocab_size: int
    codebook_count: int
    codebook_size: int
    codec: CodecIds
    tts_pad: int
    tts_bos: int
    tts_eos: int
    languages: Mapping[str, int]
    speakers: Mapping[str, int]
    speaker_dialects: Mapping[str, str]
    frame_rate_hz: float
    samples_per_frame: int
    sample_rate_hz: int
    generation: GenerationDefaults

    @property
    def supports_clone(self) -> bool:
        return self.model_type == "base"

    @property
    def supports_instruct(self) -> bool:
        """Base takes no instruct, and the 0.6B CustomVoice ignores it (the reference drops it there)."""
        return self.model_type == "voice_design" or (self.model_type == "custom_voice" and self.model_size != "0b6")


def load_config(directory: Path) -> ModelConfig:
    """Read the configuration files of `directory`; raises `CheckpointError` with a sentence."""
    try:
        return _parse(directory)
    except KeyError as error:
        raise CheckpointError(f"{directory / 'config.json'} has no {error.args[0]!r}") from error
    except (TypeError, ValueError, AttributeError) as error:
        if isinstance(error, MeshError):
            raise
        raise CheckpointError(f"{directory / 'config.json'} cannot be understood: {error}") from error


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file, or a sentence about why not."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise CheckpointError(f"{path.name} is missing in {path.parent}; is this a Qwen3-TTS checkpoint?") from error
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read as JSON: {error}") from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{path} holds no JSON object")
    return value


def _parse(directory: Path) -> ModelConfig:
    top = read_json(directory / "config.json")
    _refuse_other_families(directory, top)
    codec_file = read_json(directory / "speech_tokenizer" / "config.json")
    _refuse_25_hz(directory, str(codec_file.get("model_type", "")))
    talker, predictor = top["talker_config"], top["talker_config"]["code_predictor_config"]
    samples_per_frame = int(codec_file["decode_upsample_rate"])
    sample_rate_hz = int(codec_file["output_sample_rate"])
    config = ModelConfig(
        model_id=str(top.get("_name_or_path") or directory.name),
        model_type=str(top["tts_model_type"]),
        model_size=str(top["tts_model_size"]),
        talker=_block(talker),
        predictor=_block(predictor),
        text_vocab_size=int(talker["text_vocab_size"]),
        text_hidden_size=int(talker["text_hidden_size"]),
        codec_vocab_size=int(talker["vocab_size"]),
        codebook_count=int(talker["num_code_groups"]),
        codebook_size=int(predictor["vocab_size"]),
        codec=_codec_ids(talker),
        tts_pad=int(top["tts_pad_token_id"]),
        tts_bos=int(top["tts_bos_token_id"]),
        tts_eos=int(top["tts_eos_token_id"]),
        languages={str(k).lower(): int(v) for k, v in (talker.get("codec_language_id") or {}).items()},
        speakers={str(k).lower(): int(v) for k, v in (talker.get("spk_id") or {}).items()},
        speaker_dialects={
            str(k).lower(): str(v).lower() for k, v in (talker.get("spk_is_dialect") or {}).items() if v is not False
        },
        frame_rate_hz=sample_rate_hz / samples_per_frame,
        samples_per_frame=samples_per_frame,
        sample_rate_hz=sample_rate_hz,
        generation=_generation(directory),
    )
    _check(directory, config)
    return config


def _refuse_other_families(directory: Path, top: Mapping[str, Any]) -> None:
    if top.get("model_type") != "qwen3_tts":
        raise CheckpointError(f"{directory} holds a {top.get('model_type')!r} model; only qwen3_tts can be served")
    _refuse_25_hz(directory, str(top.get("tokenizer_type", "")))


def _refuse_25_hz(directory: Path, kind: str) -> None:
    if "25hz" in kind.lower():
        raise CheckpointError(
            f"{directory} is a 25 Hz checkpoint; only the 12 Hz family (16 codebooks, 12.5 frames a second) can be "
            "served"
        )
    if kind.lower() != "qwen3_tts_tokenizer_12hz":
        raise CheckpointError(f"{directory} names the codec {kind!r}; only qwen3_tts_tokenizer_12hz can be served")


def _block(section: Mapping[str, Any]) -> BlockConfig:
    if section.get("hidden_act", "silu") != "silu" or section.get("attention_bias", False):
        raise CheckpointError("config.json asks for an activation or an attention bias that no released model has")
    return BlockConfig(
        hidden_size=int(section["hidden_size"]),
        intermediate_size=int(section["intermediate_size"]),
        layer_count=int(section["num_hidden_layers"]),
        head_count=int(section["num_attention_heads"]),
        kv_head_count=int(section["num_key_value_heads"]),
        head_size=int(section["head_dim"]),
        rope_theta=float(section["rope_theta"]),
        norm_eps=float(section["rms_norm_eps"]),
        max_positions=int(section["max_position_embeddings"]),
    )


def _codec_ids(talker: Mapping[str, Any]) -> CodecIds:
    return CodecIds(
        pad=int(talker["codec_pad_id"]),
        bos=int(talker["codec_bos_id"]),
        eos=int(talker["codec_eos_token_id"]),
        think=int(talker["codec_think_id"]),
        nothink=int(talker["codec_nothink_id"]),
        think_bos=int(talker["codec_think_bos_id"]),
        think_eos=int(talker["codec_think_eos_id"]),
    )


def _generation(directory: Path) -> GenerationDefaults:
    path = directory / "generation_config.json"
    if not path.exists():
        return GenerationDefaults()
    given, base = read_json(path), GenerationDefaults()
    return GenerationDefaults(
        do_sample=bool(given.get("do_sample", base.do_sample)),
        temperature=float(given.get("temperature", base.temperature)),
        top_k=int(given.get("top_k", base.top_k)),
        top_p=float(given.get("top_p", base.top_p)),
        repetition_penalty=float(given.get("repetition_penalty", base.repetition_penalty)),
        predictor_do_sample=bool(given.get("subtalker_dosample", base.predictor_do_sample)),
        predictor_temperature=float(given.get("subtalker_temperature", base.predictor_temperature)),
        predictor_top_k=int(given.get("subtalker_top_k", base.predictor_top_k)),
        predictor_top_p=float(given.get("subtalker_top_p", base.predictor_top_p)),
        max_new_tokens=int(given.get("max_new_tokens", base.max_new_tokens)),
    )


def _check(directory: Path, config: ModelConfig) -> None:
    """Ids that point outside their tables would crash in the middle of speech; better to say so now."""
    if config.model_type not in ("base", "custom_voice", "voice_design"):
        raise CheckpointError(f"{directory}: unknown tts_model_type {config.model_type!r}")
    if config.codebook_count < 2 or config.codec_vocab_size <= SUPPRESSED_TAIL:
        raise CheckpointError(f"{directory}: {config.codebook_count} codebooks, vocabulary {config.codec_vocab_size}")
    codec_ids = {**config.languages, **config.speakers, **vars(config.codec)}
    for name, index in codec_ids.items():
        if not 0 <= index < config.codec_vocab_size:
            raise CheckpointError(f"{directory}: codec id {index} of {name!r} is outside the vocabulary")
    for index in (config.tts_pad, config.tts_bos, config.tts_eos):
        if not 0 <= index < config.text_vocab_size:
            raise CheckpointError(f"{directory}: text id {index} is outside the vocabulary")
    for name, dialect in config.speaker_dialects.items():
        if dialect not in config.languages:
            raise CheckpointError(f"{directory}: the dialect {dialect!r} of {name!r} is not among the languages")
