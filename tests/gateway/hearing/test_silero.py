"""The detector is the original one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from common.errors import NotReady
from services.gateway.hearing import weights
from services.gateway.hearing.silero import WINDOW_SAMPLES, Silero, shared_model
from tests.gateway.hearing.reference import probabilities, speech


def windows() -> list[np.ndarray]:
    sound = speech() / np.float32(32768)
    return [
        sound[begin : begin + WINDOW_SAMPLES] for begin in range(0, sound.size - WINDOW_SAMPLES + 1, WINDOW_SAMPLES)
    ]


def test_every_window_is_judged_as_the_original_does() -> None:
    detector = Silero(shared_model())
    ours = [detector.voice(window) for window in windows()]
    assert np.abs(np.array(ours) - probabilities()).max() < 0.01


def test_conversations_share_the_model_and_nothing_else() -> None:
    alone, first, second = (Silero(shared_model()) for _ in range(3))
    sound = windows()[20:60]
    expected = [alone.voice(window) for window in sound]
    mixed = []
    for window in sound:
        mixed.append(first.voice(window))
        second.voice(window[::-1])
    assert mixed == expected


def test_a_missing_or_foreign_file_is_no_model(tmp_path: Path) -> None:
    foreign = tmp_path / "foreign.bin"
    foreign.write_bytes(b"something else")
    with pytest.raises(NotReady, match="not the silero VAD model"):
        weights.read(foreign)


def test_a_truncated_file_is_no_model(tmp_path: Path) -> None:
    cut = tmp_path / "cut.bin"
    cut.write_bytes(weights.find().read_bytes()[:-1000])
    with pytest.raises(NotReady, match="damaged"):
        weights.read(cut)
