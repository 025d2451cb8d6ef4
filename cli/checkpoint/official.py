"""The official configurations as data: every field of config.json and of speech_tokenizer/config.json.

The sizes 0.6B and 1.7B carry the published values; `tiny` keeps every rule of them (ids as offsets from the codebook
size, the last 1024 ids as control rows, 1920 samples per frame) at dimensions a test can afford. Its widths all differ
from one another, so that a swapped pair of dimensions cannot pass unnoticed.
"""

from __future__ import annotations

from typing import Any, Literal, get_args

Size = Literal["tiny", "0.6B", "1.7B"]
ModelType = Literal["custom_voice", "voice_design", "base"]
Config = dict[str, Any]

SIZES: tuple[Size, ...] = get_args(Size)
MODEL_TYPES: tuple[ModelType, ...] = get_args(ModelType)

CONTROL_ROW_COUNT = 1024
"""Rows of the codec vocabulary behind the codes; the reference suppresses exactly the last 1024 ids, except eos."""

# Offsets from the codebook size, so that codebook_size 2048 gives the published ids.
CONTROL_IDS = {
    "codec_bos_id": 101,
    "codec_eos_token_id": 102,
    "codec_nothink_id": 107,
    "codec_pad_id": 100,
    "codec_think_bos_id": 108,
    "codec_think_eos_id": 109,
    "codec_think_id": 106,
}
LANGUAGES = {
    "chinese": 7,
    "english": 2,
    "german": 5,
    "italian": 22,
    "portuguese": 23,
    "spanish": 6,
    "japanese": 10,
    "korean": 16,
    "french": 13,
    "russian": 21,
}
DIALECTS = {"beijing_dialect": 26, "sichuan_dialect": 14}
SPEAKERS = {
    "serena": 1018,
    "vivian": 1017,
    "uncle_fu": 962,
    "ryan": 1013,
    "aiden": 813,
    "ono_anna": 825,
    "sohee": 816,
    "eric": 827,
    "dylan": 830,
}
SPEAKER_DIALECTS = {"eric": "sichuan_dialect", "dylan": "beijing_dialect"}

SPECIAL_TOKENS = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|object_ref_start|>",
    "<|object_ref_end|>",
    "<|box_start|>",
    "<|box_end|>",
    "<|quad_start|>",
    "<|quad_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
    "<|image_pad|>",
    "<|video_pad|>",
    "<tool_call>",
    "</tool_call>",
    "<|fim_prefix|>",
    "<|fim_middle|>",
    "<|fim_suffix|>",
    "<|fim_pad|>",
    "<|repo_name|>",
    "<|file_sep|>",
    "<tool_response>",
    "</tool_response>",
    "<think>",
    "</think>",
    "<|audio_start|>",
    "<|audio_end|>",
    "<tts_pad>",
    "<tts_text_bos>",
    "<tts_text_eod>",
    "<tts_text_bos_single>",
    "<|audio_pad|>",
)
"""Added tokens in id order; the first stands right behind the ordinary vocabulary (151643 in the real tokenizer)."""

TEXT_IDS = {
    "im_start_token_id": "<|im_start|>",
    "im_end_token_id": "<|im_end|>",
    "tts_pad_token_id": "<tts_pad>",
    "tts_bos_token_id": "<tts_text_bos>",
    "tts_eos_token_id": "<tts_text_eod>",
}

REAL_ORDINARY_TOKEN_COUNT = 151643
REAL_ROLE_IDS = {"assistant": 77091, "user": 872}
TINY_ORDINARY_TOKEN_COUNT = 640
TINY_TEXT_VOCAB_SIZE = 704

GENERATION_CONFIG: Config = {
    "do_sample": True,
    "repetition_penalty": 1.05,
    "temperature": 0.9,
    "top_p": 1.0,
    "top_k": 50,
    "subtalker_dosample": True,
    "subtalker_temperature": 0.9,
    "subtalker_top_p": 1.0,
    "subtalker_top_k": 50,
    "max_new_tokens": 8192,
}
"""In this order, indented by two, without a final newline, the bytes have the published SHA-256 f1b90b4513f3…"""

PREPROCESSOR_CONFIG: Config = {
    "padding_side": "left",
    "padding_value": 0.0,
    "processor_class": "Qwen3TTSProcessor",
    "return_attention_mask": True,
}
CODEC_PREPROCESSOR_CONFIG: Config = {
    "chunk_length_s": None,
    "feature_extractor_type": "EncodecFeatureExtractor",
    "feature_size": 1,
    "overlap": None,
    "padding_side": "right",
    "padding_value": 0.0,
    "return_attention_mask": True,
    "sampling_rate": 24000,
}
CODEC_CONFIGURATION: Config = {"framework": "pytorch", "task": "text-to-speech", "allow_remote": True}

_TALKER_DIMENSIONS: dict[Size, Config] = {
    "0.6B": {"hidden_size": 1024, "intermediate_size": 3072},
    "1.7B": {"hidden_size": 2048, "intermediate_size": 6144},
    "tiny": {
        "hidden_size": 64,
        "intermediate_size": 144,
        "text_hidden_size": 48,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 32,
        "rope_scaling": {"interleaved": True, "mrope_section": [6, 5, 5], "rope_type": "default"},
    },
}
_TINY_PREDICTOR: Config = {
    "hidden_size": 40,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "layer_types": ["full_attention"] * 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
}
_TINY_SPEAKER_ENCODER: Config = {
    "enc_channels": [32, 32, 32, 32, 96],
    "enc_attention_channels": 16,
    "enc_se_channels": 24,
}
_TINY_DECODER: Config = {
    "codebook_dim": 40,
    "latent_dim": 48,
    "hidden_size": 32,
    "intermediate_size": 56,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "head_dim": 16,
    "sliding_window": 8,
    "decoder_dim": 32,
    "vector_quantization_hidden_dimension": 40,
}
_TINY_ENCODER: Config = {
    "hidden_size": 32,
    "num_filters": 4,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "head_dim": 8,
    "intermediate_size": 56,
    "codebook_dim": 20,
    "vector_quantization_hidden_dimension": 20,
    "upsample_groups": 32,
}


def model_config(like: Size, model_type: ModelType, codebook_size: int | None = None) -> Config:
    """config.json of one size and type. `codebook_size` defaults to 2048, and to 64 in `tiny`."""
    codebook_size = codebook_size or default_codebook_size(like)
    first_special = TINY_ORDINARY_TOKEN_COUNT if like == "tiny" else REAL_ORDINARY_TOKEN_COUNT
    config: Config = {
        "architectures": ["Qwen3TTSForConditionalGeneration"],
        # The tokenizer decides the role's id; in a small vocabulary the published value lies outside the table.
        "assistant_token_id": REAL_ROLE_IDS["assistant"],
        **{field: first_special + SPECIAL_TOKENS.index(token) for field, token in TEXT_IDS.items()},
        "model_type": "qwen3_tts",
        "tokenizer_type": "qwen3_tts_tokenizer_12hz",
        "tts_model_size": "0b6" if like == "0.6B" else "1b7",
        "tts_model_type": model_type,
        "talker_config": _talker_config(like, model_type, codebook_size),
        "transformers_version": "4.57.3",
    }
    if model_type == "base":
        config["speaker_encoder_config"] = {
            "enc_dim": config["talker_config"]["hidden_size"],
            "sample_rate": 24000,
            **(_TINY_SPEAKER_ENCODER if like == "tiny" else {}),
        }
    return config


def codec_config(like: Size, codebook_size: int | None = None) -> Config:
    """speech_tokenizer/config.json: one for both real sizes, a small one for `tiny`."""
    codebook_size = codebook_size or default_codebook_size(like)
    decoder, encoder = _decoder_config(codebook_size), _encoder_config(codebook_size)
    if like == "tiny":
        decoder |= _TINY_DECODER | {"semantic_codebook_size": 2 * codebook_size}
        encoder |= _TINY_ENCODER
    return {
        "architectures": ["Qwen3TTSTokenizerV2Model"],
        "model_type": "qwen3_tts_tokenizer_12hz",
        "encoder_valid_num_quantizers": 16,
        "input_sample_rate": 24000,
        "output_sample_rate": 24000,
        "decode_upsample_rate": 1920,
        "encode_downsample_rate": 1920,
        "encoder_config": encoder,
        "decoder_config": decoder,
        "transformers_version": "4.57.3",
    }


def default_codebook_size(like: Size) -> int:
    return 64 if like == "tiny" else 2048


def _talker_config(like: Size, model_type: ModelType, codebook_size: int) -> Config:
    speakers = SPEAKERS if model_type == "custom_voice" else {}
    languages = LANGUAGES | (DIALECTS if model_type == "custom_voice" else {})
    talker: Config = {
        "model_type": "qwen3_tts_talker",
        "vocab_size": codebook_size + CONTROL_ROW_COUNT,
        "text_hidden_size": 2048,
        "text_vocab_size": TINY_TEXT_VOCAB_SIZE if like == "tiny" else 151936,
        "num_hidden_layers": 28,
        "num_attention_heads": 16,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "hidden_act": "silu",
        "rms_norm_eps": 1e-06,
        "attention_bias": False,
        "attention_dropout": 0,
        "rope_theta": 1000000,
        "rope_scaling": {"interleaved": True, "mrope_section": [24, 20, 20], "rope_type": "default"},
        "max_position_embeddings": 32768,
        "sliding_window": None,
        "use_sliding_window": False,
        "use_cache": True,
        "initializer_range": 0.02,
        "num_code_groups": 16,
        "position_id_per_seconds": 13,
        **{name: codebook_size + offset for name, offset in CONTROL_IDS.items()},
        "codec_language_id": {name: codebook_size + offset for name, offset in languages.items()},
        "spk_id": {name: codebook_size + offset for name, offset in speakers.items()},
        "spk_is_dialect": {name: SPEAKER_DIALECTS.get(name, False) for name in speakers},
        "code_predictor_config": _predictor_config(codebook_size) | (_TINY_PREDICTOR if like == "tiny" else {}),
    }
    return talker | _TALKER_DIMENSIONS[like]


def _predictor_config(codebook_size: int) -> Config:
    return {
        "model_type": "qwen3_tts_talker_code_predictor",
        "vocab_size": codebook_size,
        "hidden_size": 1024,
        "intermediate_size": 3072,
        "num_hidden_layers": 5,
        "layer_types": ["full_attention"] * 5,
        "num_attention_heads": 16,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "hidden_act": "silu",
        "rms_norm_eps": 1e-06,
        "attention_bias": False,
        "attention_dropout": 0,
        "rope_theta": 1000000,
        "rope_scaling": None,
        "max_position_embeddings": 65536,
        "max_window_layers": 28,
        "sliding_window": None,
        "use_sliding_window": False,
        "use_cache": True,
        "initializer_range": 0.02,
        "num_code_groups": 16,
    }


def _decoder_config(codebook_size: int) -> Config:
    return {
        "codebook_size": codebook_size,
        "codebook_dim": 512,
        "semantic_codebook_size": 4096,
        "vector_quantization_hidden_dimension": 512,
        "latent_dim": 1024,
        "hidden_size": 512,
        "intermediate_size": 1024,
        "num_hidden_layers": 8,
        "num_attention_heads": 16,
        "num_key_value_heads": 16,
        "head_dim": 64,
        "hidden_act": "silu",
        "rms_norm_eps": 1e-05,
        "attention_bias": False,
        "attention_dropout": 0.0,
        "rope_theta": 10000,
        "sliding_window": 72,
        "max_position_embeddings": 8000,
        "layer_scale_initial_scale": 0.01,
        "num_quantizers": 16,
        "num_semantic_quantizers": 1,
        "upsample_rates": [8, 5, 4, 3],
        "upsampling_ratios": [2, 2],
        "decoder_dim": 1536,
    }


def _encoder_config(codebook_size: int) -> Config:
    return {
        "model_type": "mimi",
        "audio_channels": 1,
        "sampling_rate": 24000,
        "frame_rate": 12.5,
        "hidden_size": 512,
        "num_filters": 64,
        "num_residual_layers": 1,
        "upsampling_ratios": [8, 6, 5, 4],
        "kernel_size": 7,
        "residual_kernel_size": 3,
        "last_kernel_size": 3,
        "dilation_growth_rate": 2,
        "compress": 2,
        "use_causal_conv": True,
        "use_conv_shortcut": False,
        "pad_mode": "constant",
        "trim_right_ratio": 1.0,
        "upsample_groups": 512,
        "num_hidden_layers": 8,
        "num_attention_heads": 8,
        "num_key_value_heads": 8,
        "head_dim": 64,
        "intermediate_size": 2048,
        "hidden_act": "gelu",
        "norm_eps": 1e-05,
        "attention_bias": False,
        "attention_dropout": 0.0,
        "rope_theta": 10000.0,
        "sliding_window": 250,
        "max_position_embeddings": 8000,
        "layer_scale_initial_scale": 0.01,
        "initializer_range": 0.02,
        "use_cache": False,
        "use_streaming": False,
        "codebook_size": codebook_size,
        "codebook_dim": 256,
        "vector_quantization_hidden_dimension": 256,
        "num_quantizers": 32,
        "num_semantic_quantizers": 1,
    }
