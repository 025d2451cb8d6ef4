"""Sound in events is passed on at the pace of a microphone, and whole."""

from __future__ import annotations

import numpy as np
import pytest

from services.gateway.realtime.intake import AHEAD_S, Intake
from tests.gateway.realtime.house import tone


def test_sound_that_comes_in_time_waits_for_nothing() -> None:
    intake, pcm = Intake(10.0), tone(0.02, 24000).tobytes()
    for index in range(200):
        intake.push(pcm)
        intake.take(10.0 + 0.02 * (index + 1))
        assert intake.waiting_s == 0


def test_a_file_is_passed_on_at_its_own_pace_and_whole() -> None:
    intake, sound = Intake(0.0), tone(5.0, 24000)
    intake.push(sound.tobytes())
    taken, now_s = [intake.take(0.0)], 0.0
    assert len(taken[0]) / 16000 == pytest.approx(AHEAD_S, abs=0.05)
    while (due_s := intake.due_s(now_s)) is not None:
        now_s = due_s
        taken.append(intake.take(now_s))
        assert sum(map(len, taken)) / 16000 <= now_s + AHEAD_S + 0.001
    assert now_s == pytest.approx(5.0 - AHEAD_S, abs=0.05)
    heard = np.concatenate(taken)
    assert len(heard) / 16000 == pytest.approx(5.0, abs=0.02)  # the resampler keeps its last 12.5 ms
    spectrum = np.abs(np.fft.rfft(heard.astype(float)))
    assert np.argmax(spectrum) * 16000 / len(heard) == pytest.approx(440, abs=1)


def test_a_hiccup_is_caught_up_with_at_once() -> None:
    intake = Intake(0.0)
    for index in range(100):
        intake.push(tone(0.02, 24000).tobytes())
        intake.take(0.02 * (index + 1))
    intake.push(tone(0.6, 24000).tobytes())  # what 0.6 s of silence on the network held back
    intake.take(2.6)
    assert intake.waiting_s == 0


def test_a_commit_takes_everything_and_a_clear_leaves_nothing() -> None:
    intake = Intake(0.0)
    intake.push(tone(3.0, 24000).tobytes())
    assert len(intake.take(0.0, all_of_it=True)) / 16000 == pytest.approx(3.0, abs=0.02)
    intake.push(tone(3.0, 24000).tobytes())
    intake.clear()
    assert intake.due_s(0.0) is None
    assert intake.take(9.0).size == 0
