"""The sizes of mini, in the words of the official configuration files, and the sixteen codebooks' jobs.

Both configurations are the random-checkpoint writer's with these sections merged in, so they stay whole and checked.
"""

from __future__ import annotations

from typing import Any

from cli.checkpoint.official import CONTROL_IDS, SPECIAL_TOKENS, TEXT_IDS
from cli.checkpoint.random import configurations
from tools.mini_voice.voices import VOICES

Config = dict[str, Any]

CODEBOOK_COUNT = 16
CODEBOOK_SIZE = 512
USED_CODEBOOKS = 6
"""Code 0 envelope, code 1 pitch and voicing, codes 2 to 5 what the envelope still lacks; the others carry nothing."""

ENVELOPE_WIDTH, PITCH_WIDTH = 112, 16
ENTRY_WIDTH = ENVELOPE_WIDTH + PITCH_WIDTH

ORDINARY_TOKEN_COUNT = 300
TEXT_VOCAB_SIZE = ORDINARY_TOKEN_COUNT + len(SPECIAL_TOKENS)
FIRST_SPEAKER_ID = CODEBOOK_SIZE + 813

_TALKER: Config = {
    "hidden_size": 256,
    "intermediate_size": 768,
    "text_hidden_size": 128,
    "text_vocab_size": TEXT_VOCAB_SIZE,
    "num_hidden_layers": 6,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 64,
    "rope_theta": 10000,
    "max_position_embeddings": 4096,
    "spk_id": {voice.name: FIRST_SPEAKER_ID + i for i, voice in enumerate(VOICES)},
    "spk_is_dialect": {voice.name: False for voice in VOICES},
    "codec_language_id": {"english": CODEBOOK_SIZE + 2},
}
_PREDICTOR: Config = {
    "hidden_size": 256,
    "intermediate_size": 512,
    "num_hidden_layers": 1,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "head_dim": 64,
    "rope_theta": 10000,
}
_DECODER: Config = {
    "codebook_dim": 2 * ENTRY_WIDTH,
    "vector_quantization_hidden_dimension": 2 * ENTRY_WIDTH,
    "latent_dim": 192,
    "hidden_size": 128,
    "intermediate_size": 256,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "head_dim": 32,
    "sliding_window": 12,
    "decoder_dim": 192,
}
_ENCODER: Config = {
    "hidden_size": 32,
    "num_filters": 4,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "intermediate_size": 32,
    "codebook_dim": 16,
    "vector_quantization_hidden_dimension": 16,
}


def model_and_codec_config() -> tuple[Config, Config]:
    """config.json and speech_tokenizer/config.json of mini."""
    model, codec = configurations(
        "tiny",
        "custom_voice",
        CODEBOOK_SIZE,
        talker_config=_TALKER,
        code_predictor_config=_PREDICTOR,
        decoder_config=_DECODER,
        encoder_config=_ENCODER,
        tts_model_size="0b6",  # the size whose voices take no instruction
        **{field: special_token_id(token) for field, token in TEXT_IDS.items()},
    )
    return model, codec


def special_token_id(token: str) -> int:
    """Special tokens stand right behind the ordinary ones."""
    return ORDINARY_TOKEN_COUNT + SPECIAL_TOKENS.index(token)


def control_id(name: str) -> int:
    """A control row of the codec vocabulary by the name of its field."""
    return CODEBOOK_SIZE + CONTROL_IDS[name]
