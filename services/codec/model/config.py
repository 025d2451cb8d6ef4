"""Dimensions of the codec, read from `speech_tokenizer/config.json`; nothing here has a default.

The reference package's class defaults belong to another model, so a missing field is an error.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Self

from common.errors import Broken


@dataclass(frozen=True)
class _Section:
    @classmethod
    def read(cls, section: Mapping[str, Any]) -> Self:
        missing = [f.name for f in fields(cls) if f.name not in section]
        if missing:
            raise Broken(f"The codec's configuration lacks {', '.join(missing)}.")
        values = {f.name: section[f.name] for f in fields(cls)}
        return cls(**{name: tuple(value) if isinstance(value, list) else value for name, value in values.items()})


@dataclass(frozen=True)
class DecoderConfig(_Section):
    codebook_size: int
    codebook_dim: int
    latent_dim: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    sliding_window: int
    rope_theta: float
    rms_norm_eps: float
    num_quantizers: int
    upsample_rates: tuple[int, ...]
    upsampling_ratios: tuple[int, ...]
    decoder_dim: int

    @property
    def samples_per_frame(self) -> int:
        return math.prod(self.upsample_rates) * math.prod(self.upsampling_ratios)


@dataclass(frozen=True)
class EncoderConfig(_Section):
    hidden_size: int
    num_filters: int
    upsampling_ratios: tuple[int, ...]
    kernel_size: int
    residual_kernel_size: int
    last_kernel_size: int
    num_residual_layers: int
    compress: int
    dilation_growth_rate: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    norm_eps: float
    rope_theta: float
    codebook_size: int
    num_quantizers: int
    num_semantic_quantizers: int
    codebook_dim: int
    intermediate_size: int
    vector_quantization_hidden_dimension: int


@dataclass(frozen=True)
class CodecConfig:
    """Both halves, the rates that join them, and where their files lie."""

    directory: Path
    decoder: DecoderConfig
    encoder: EncoderConfig | None
    encoder_quantizers: int
    sample_rate_hz: int

    @property
    def samples_per_frame(self) -> int:
        return self.decoder.samples_per_frame

    @classmethod
    def read(cls, model_dir: Path) -> Self:
        """From a checkpoint (the directory above `speech_tokenizer/`) or the speech tokenizer itself."""
        nested = model_dir / "speech_tokenizer"
        directory = nested if nested.is_dir() else model_dir
        path = directory / "config.json"
        if not path.is_file():
            raise Broken(f"No codec configuration at {path}.")
        data = json.loads(path.read_text())
        if data.get("model_type") != "qwen3_tts_tokenizer_12hz":
            raise Broken(f"{path} describes {data.get('model_type')!r}, not qwen3_tts_tokenizer_12hz.")
        config = cls(
            directory=directory,
            decoder=DecoderConfig.read(data["decoder_config"]),
            encoder=EncoderConfig.read(data["encoder_config"]) if data.get("encoder_config") else None,
            encoder_quantizers=data["encoder_valid_num_quantizers"],
            sample_rate_hz=data["output_sample_rate"],
        )
        config._check(data)
        return config

    def _check(self, data: Mapping[str, Any]) -> None:
        for name in ("decode_upsample_rate", "encode_downsample_rate"):
            if data[name] != self.samples_per_frame:
                raise Broken(f"{name} is {data[name]}, the decoder's rates multiply to {self.samples_per_frame}.")
        if data["input_sample_rate"] != self.sample_rate_hz:
            raise Broken("The codec's input and output rates differ.")
        if self.encoder_quantizers != self.decoder.num_quantizers:
            raise Broken("The codec's encoder and decoder use different numbers of codebooks.")
