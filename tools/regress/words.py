"""Skipped and repeated words: of mini's voices by time alignment to the synthesiser that they learned from.

Through what any other voice says a recogniser walks, and may skip or repeat any word of the sentence.
The walk is a smaller proof (it blames sentences of the synthesiser itself) and takes a time that grows with the cube of
the words: 0.6 s for ten, 6 s for twenty.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher

import numpy as np
import numpy.typing as npt

from tools.mini_voice.met import met
from tools.mini_voice.recognise import dictionary, grammar_decoder, hear, spoken_words
from tools.mini_voice.speech_data import padded
from tools.mini_voice.synthesiser import synthesiser
from tools.mini_voice.voices import VOICES

LONGEST_WALK = 24


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


def faults(text: str, voice: str, samples: npt.NDArray[np.float32], sample_rate_hz: int) -> Walk | None:
    """None where nothing here can tell."""
    for recipe in VOICES:
        if recipe.name == voice:
            rendering = synthesiser().speak(text, recipe)
            found = met(rendering, padded(rendering), samples)
            return Walk(found.skipped, found.repeated, found.total)
    return walk(text, samples, sample_rate_hz) if len(text.split()) <= LONGEST_WALK else None


def walk(sentence: str, samples: npt.NDArray[np.float32], sample_rate_hz: int) -> Walk | None:
    """None where the recogniser's dictionary lacks a word (digits are not spelled out here)."""
    words = spoken_words(sentence).split()
    if not words or any(character.isdigit() for character in sentence) or not set(words) <= dictionary():
        return None
    heard = hear(grammar_decoder(grammar(words)), samples, sample_rate_hz)
    return compare(words, heard.split())
