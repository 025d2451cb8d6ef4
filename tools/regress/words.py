"""Skipped and repeated words: a recogniser walks through the sentence, and may skip or repeat any word of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher

import numpy as np
import numpy.typing as npt

from tools.mini_voice.recognise import dictionary, grammar_decoder, hear, spoken_words


@dataclass(frozen=True)
class Walk:
    """How the words of a text were met, in order."""

    skipped: int
    repeated: int
    total: int


def grammar(words: Sequence[str]) -> str:
    """JSGF: every word once, not at all, or several times, in order."""
    steps = " ".join(f"{word}*" for word in words)
    return f"#JSGF V1.0; grammar walk; public <walk> = {steps};"


def compare(expected: Sequence[str], heard: Sequence[str]) -> Walk:
    """Words of `expected` that were not heard, and words heard beyond it."""
    same = sum(block.size for block in SequenceMatcher(None, expected, heard, autojunk=False).get_matching_blocks())
    return Walk(len(expected) - same, len(heard) - same, len(expected))


def walk(sentence: str, samples: npt.NDArray[np.float32], sample_rate_hz: int) -> Walk | None:
    """None where the recogniser's dictionary lacks a word (digits are not spelled out here)."""
    words = spoken_words(sentence).split()
    if not words or any(character.isdigit() for character in sentence) or not set(words) <= dictionary():
        return None
    heard = hear(grammar_decoder(grammar(words)), samples, sample_rate_hz)
    return compare(words, heard.split())
