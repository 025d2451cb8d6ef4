"""The text tokenizer of mini: a small byte-level BPE in the official files, and where each token stands in the text.

Few merges on purpose: about nine tokens a second of speech, so that a token is a sound or two, spelled alike wherever
it stands, and the streaming layout, which reads 12.5 a second, stays a little ahead of what is being said.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers

from cli.checkpoint.official import SPECIAL_TOKENS
from cli.checkpoint.vocabulary import PRE_TOKENIZER_PATTERN
from tools.mini_voice.dimensions import ORDINARY_TOKEN_COUNT

_ROLE_WORDS = ("assistant", "user")
_ROLE_COUNT = 30_000
"""A role must be one token, as in the published vocabulary: the prompt's slices count on it."""

Spans = npt.NDArray[np.int64]


def train(texts: Iterable[str], token_count: int = ORDINARY_TOKEN_COUNT) -> Tokenizer:
    """Ordinary tokens 0 … token_count − 1, learned from `texts`; the same texts give the same tokens."""
    tokenizer = _untrained()
    trainer = trainers.BpeTrainer(
        vocab_size=token_count, show_progress=False, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    tokenizer.train_from_iterator([*_roles(), *texts], trainer)
    return tokenizer


def save(tokenizer: Tokenizer, directory: Path) -> None:
    """vocab.json, merges.txt and tokenizer_config.json in the official form."""
    model = json.loads(tokenizer.to_str())["model"]
    lines = ["#version: 0.2", *(merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"])]
    (directory / "vocab.json").write_text(json.dumps(model["vocab"], ensure_ascii=False), encoding="utf-8")
    (directory / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    config = json.dumps(_config(len(model["vocab"])), ensure_ascii=False, indent=2)
    (directory / "tokenizer_config.json").write_text(config, encoding="utf-8")


def load(directory: Path) -> Tokenizer:
    """From vocab.json and merges.txt."""
    model = models.BPE.from_file(str(directory / "vocab.json"), str(directory / "merges.txt"))
    tokenizer = _untrained()
    tokenizer.model = model
    return tokenizer


def encode(tokenizer: Tokenizer, text: str) -> tuple[list[int], Spans]:
    """Ids of an ASCII text, and the character at which each token begins."""
    encoding = tokenizer.encode(text, add_special_tokens=False)
    lengths = [len(token) for token in encoding.tokens]
    return encoding.ids, np.cumsum([0, *lengths])[:-1]


def token_at(starts: Spans, chars: npt.NDArray[Any], text_length: int) -> Spans:
    """Index of the token that holds each character; the number of tokens for a character behind the text."""
    found = np.searchsorted(starts, chars, side="right") - 1
    return np.asarray(np.where(chars >= text_length, len(starts), found), np.int64)


def _untrained() -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    split = pre_tokenizers.Split(Regex(PRE_TOKENIZER_PATTERN), "isolated")
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, byte_level])
    return tokenizer


def _roles() -> Sequence[str]:
    return [f"{role}\n" for role in _ROLE_WORDS for _ in range(_ROLE_COUNT)]


def _config(first_special: int) -> dict[str, object]:
    added = {str(first_special + i): _added(token) for i, token in enumerate(SPECIAL_TOKENS)}
    return {
        "add_bos_token": False,
        "add_prefix_space": False,
        "added_tokens_decoder": added,
        "bos_token": None,
        "clean_up_tokenization_spaces": False,
        "eos_token": "<|im_end|>",
        "errors": "replace",
        "model_max_length": 131072,
        "pad_token": "<|endoftext|>",
        "split_special_tokens": False,
        "tokenizer_class": "Qwen2Tokenizer",
        "unk_token": None,
    }


def _added(content: str) -> dict[str, object]:
    return {
        "content": content,
        "lstrip": False,
        "normalized": False,
        "rstrip": False,
        "single_word": False,
        "special": True,
    }
