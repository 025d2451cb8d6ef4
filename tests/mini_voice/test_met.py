"""Words of a made-up language, each a sound of its own: what was left out or said twice is found."""

from __future__ import annotations

import numpy as np
import pytest

from tools.mini_voice.features import SAMPLE_RATE_HZ, Array
from tools.mini_voice.met import Met, met
from tools.mini_voice.synthesiser import Phone, Speech, Word
from tools.mini_voice.timing import FRAME_S, LEAD_FRAMES

LENGTHS_S = (0.3, 0.18, 0.42, 0.25, 0.36)


def spoken(word: int, length_s: float) -> Array:
    """A buzz through two resonances that glide, other ones in every word."""
    time = np.arange(int(length_s * SAMPLE_RATE_HZ)) / SAMPLE_RATE_HZ
    low, high = ((300, 2300), (700, 1100), (450, 3400), (850, 2700), (250, 900))[word]
    glide = 1 + 0.15 * np.sin(2 * np.pi * time / length_s + word)
    partials = [
        np.exp(-(((120 * k - low * glide) / 90) ** 2)) + 0.5 * np.exp(-(((120 * k - high / glide) / 140) ** 2))
        for k in range(1, 40)
    ]
    waves = [level * np.sin(2 * np.pi * 120 * k * time) for k, level in enumerate(partials, 1)]
    return np.asarray(0.4 * np.sum(waves, axis=0), np.float32)


def said(words: list[int], pace: float = 1.0) -> Array:
    silence = np.zeros(int(LEAD_FRAMES * FRAME_S * SAMPLE_RATE_HZ), np.float32)
    return np.concatenate([silence, *(spoken(word, pace * LENGTHS_S[word]) for word in words), silence])


def teacher() -> Speech:
    starts = np.cumsum((0.0, *LENGTHS_S))
    words = tuple(Word(float(start), 0, 1) for start in starts[:-1])
    samples = said([0, 1, 2, 3, 4])[int(LEAD_FRAMES * FRAME_S * SAMPLE_RATE_HZ) :]
    return Speech(samples, words, (Phone(float(starts[-1]), "_"),))


@pytest.mark.parametrize("pace", [0.85, 1.0, 1.2])
def test_every_word_once_is_whole_at_any_pace(pace: float) -> None:
    found = met(teacher(), said([0, 1, 2, 3, 4]), said([0, 1, 2, 3, 4], pace))
    assert (found.skipped, found.repeated, found.total) == (0, 0, 5)


@pytest.mark.parametrize("missing", range(5))
def test_a_word_left_out_is_found(missing: int) -> None:
    words = [word for word in range(5) if word != missing]
    found = met(teacher(), said([0, 1, 2, 3, 4]), said(words))
    assert found.skipped == 1
    assert not found.whole


@pytest.mark.parametrize("twice", range(5))
def test_a_word_said_twice_is_found(twice: int) -> None:
    words = sorted([0, 1, 2, 3, 4, twice])
    assert met(teacher(), said([0, 1, 2, 3, 4]), said(words)).repeated in (1, 2)


def test_a_longer_pause_says_nothing() -> None:
    pause = np.zeros(int(0.3 * SAMPLE_RATE_HZ), np.float32)
    start = int((LEAD_FRAMES * FRAME_S + sum(LENGTHS_S[:2])) * SAMPLE_RATE_HZ)
    sound = said([0, 1, 2, 3, 4])
    assert met(teacher(), sound, np.concatenate([sound[:start], pause, sound[start:]])).whole


def test_silence_says_no_word() -> None:
    reference = said([0, 1, 2, 3, 4])
    nothing = met(teacher(), reference, np.zeros(0, np.float32))
    assert nothing == Met(5, 0, 5, nothing.distance_db)
