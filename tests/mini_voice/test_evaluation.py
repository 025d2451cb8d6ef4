from __future__ import annotations

import numpy as np
import pytest

from tools.mini_voice.card import card
from tools.mini_voice.distance import align, mel_cepstral_distance
from tools.mini_voice.evaluate import Score
from tools.mini_voice.features import Array


def sweep(seconds: float, top_hz: float) -> Array:
    time = np.arange(int(24000 * seconds)) / 24000
    phase = 2 * np.pi * (200 * time + (top_hz - 200) * time**2 / (2 * seconds))
    return (0.3 * np.sin(phase)).astype(np.float32)


def test_alignment_takes_the_cheapest_way() -> None:
    costs = np.array([[0.0, 9.0, 9.0], [0.0, 9.0, 9.0], [9.0, 3.0, 0.0]])
    found = align(costs)
    assert found.cost == pytest.approx(3.0 / 4)
    assert found.path.tolist() == [[0, 0], [1, 0], [2, 1], [2, 2]]


def test_a_slower_rendering_is_nearer_than_another_sound() -> None:
    said, slower, other = sweep(0.8, 3000), sweep(1.0, 3000), sweep(0.8, 600)
    assert mel_cepstral_distance(said, said) < 1e-4
    assert mel_cepstral_distance(said, slower) < 0.3 * mel_cepstral_distance(said, other)


def test_the_card_says_what_was_measured_and_marks_what_was_not() -> None:
    scores = [
        Score("mina", "streaming", 30, 27, 29, 4.25, 27, 30, 1.02, 5.5),
        Score("milo", "codec alone", 30, 28, 27, 4.0),
    ]
    text = card(
        scores, hours=34.1, codec_steps=100, talker_steps=200, talker_parameters=7_600_000, codec_parameters=2_000_000
    )
    assert "| mina, streaming | 27 | 29 | 27 | 30 | 1.02 | 4.25 | 5.50 |" in text
    assert "| milo, codec alone | 28 | 27 | – | – | – | 4.00 | – |" in text
    assert "30 sentences that were not in training" in text
    assert "7.6 M" in text
    assert "**Unfinished.**" not in text


def test_the_card_admits_a_voice_that_falls_short_of_its_teacher() -> None:
    scores = [Score("mina", "streaming", 30, 30, 29, 4.25, 15, 30, 1.02, 5.5)]
    text = card(scores, hours=1, codec_steps=1, talker_steps=1, talker_parameters=1, codec_parameters=1)
    assert "**Unfinished.**" in text
