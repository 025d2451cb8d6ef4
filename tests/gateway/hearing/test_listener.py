"""From sound to the windows that the turn machine counts."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from services.gateway.hearing.listener import HearingSettings, Listener
from services.gateway.turns.actions import Action, SpeechStarted, TurnCommitted
from services.gateway.turns.events import Connected, TurnJudged, VoiceWindow
from services.gateway.turns.machine import TurnMachine
from services.gateway.turns.settings import TurnSettings
from tests.gateway.hearing.reference import speech

ONSET, END = 12_800, 82_548  # of the voice in speech.flac


def scripted(probabilities: list[float]) -> Listener:
    values = iter(probabilities)
    return Listener(voice=lambda window: next(values))


@settings(deadline=None, max_examples=25)
@given(st.lists(st.integers(0, 3_000), max_size=12))
def test_how_the_sound_was_cut_changes_no_window(cuts: list[int]) -> None:
    sound = speech()[: 32 * 512]
    bounds = sorted({0, *(min(cut, sound.size) for cut in np.cumsum(cuts).tolist()), sound.size})
    listener = Listener()
    heard = [window for begin, end in pairwise(bounds) for window in listener.hear(sound[begin:end])]
    assert heard == Listener().hear(sound)


def test_windows_follow_each_other_without_a_gap() -> None:
    listener, heard = Listener(), []
    for _ in range(10):
        heard += listener.hear(np.zeros(333, np.int16))
    assert [window.end_sample for window in heard] == [512 * (index + 1) for index in range(6)]
    assert {window.sample_count for window in heard} == {512}


def test_what_was_given_is_not_kept_by_reference() -> None:
    heard: list[NDArray[np.float32]] = []

    def voice(window: NDArray[np.float32]) -> float:
        heard.append(window)
        return 0.0

    listener = Listener(HearingSettings(noise_dbfs=-120), voice)
    piece = np.full(300, 1000, np.int16)
    listener.hear(piece)
    piece[:] = -1000
    listener.hear(np.full(212, 1000, np.int16))
    assert heard[0].min() > 0


def test_voice_must_fall_below_the_threshold_to_be_over() -> None:
    heard = scripted([0.4, 0.5, 0.4, 0.34, 0.4, 0.6]).hear(np.zeros(6 * 512, np.int16))
    assert [window.voiced for window in heard] == [False, True, True, False, False, True]


def test_the_threshold_may_change_in_mid_conversation() -> None:
    listener = scripted([0.6, 0.6])
    (before,) = listener.hear(np.zeros(512, np.int16))
    listener.settings = HearingSettings(threshold=0.8)
    (after,) = listener.hear(np.zeros(512, np.int16))
    assert (before.voiced, after.voiced) == (True, False)


def test_the_guard_marks_windows_as_echo() -> None:
    listener = scripted([0.9, 0.9])
    (first,) = listener.hear(np.zeros(512, np.int16), echo=True)
    (second,) = listener.hear(np.zeros(512, np.int16))
    assert (first.echo, second.echo) == (True, False)


def test_speech_is_heard_where_it_is() -> None:
    voiced = [window for window in Listener().hear(speech()) if window.voiced]
    first, last = voiced[0].end_sample - 512, voiced[-1].end_sample
    assert abs(first - ONSET) <= 1600
    assert 0 <= last - END <= 3200


@pytest.mark.parametrize("level", [0, 3, 30, 300, 3000])
def test_noise_is_no_voice(level: int) -> None:
    sound = (np.random.default_rng(level).standard_normal(10 * 16_000) * level).astype(np.int16)
    assert sum(window.voiced for window in Listener().hear(sound)) <= 1


@pytest.mark.parametrize("hertz", [50, 440, 1000, 3000])
def test_a_tone_is_no_voice(hertz: int) -> None:
    sound = (8000 * np.sin(2 * np.pi * hertz * np.arange(5 * 16_000) / 16_000)).astype(np.int16)
    voiced = [window.voiced for window in Listener().hear(sound)]
    assert sum(voiced) <= 3


@pytest.mark.parametrize("gain", [0.05, 0.3, 1.9])
def test_speech_is_voice_soft_and_loud(gain: float) -> None:
    sound = np.clip(speech() * gain, -32768, 32767).astype(np.int16)
    within = [window.voiced for window in Listener().hear(sound) if ONSET + 8_000 < window.end_sample < END]
    assert sum(within) > 0.75 * len(within)


def test_a_spoken_sentence_is_one_turn_of_the_machine() -> None:
    machine, listener, did = TurnMachine(TurnSettings(), 0.0), Listener(), list[Action]()
    machine.step(Connected(), 0.0)
    sound, now_s = speech(), 0.0
    for begin in range(0, sound.size, 320):
        now_s = begin / 16_000
        for window in listener.hear(sound[begin : begin + 320]):
            did += machine.step(window, now_s)
            did += machine.step(TurnJudged(1, machine_revision(did), 0.5), now_s)
    committed = [action for action in did if isinstance(action, TurnCommitted)]
    (started,) = (action for action in did if isinstance(action, SpeechStarted))
    assert [turn.turn for turn in committed] == [1]
    assert started.from_sample < ONSET
    assert END < committed[0].end_sample < END + 8_000


def machine_revision(did: list[Action]) -> int:
    return max((getattr(action, "revision", 0) for action in did), default=0)


@pytest.mark.parametrize(
    "wrong", [{"threshold": 0.0}, {"threshold": 1.0}, {"release": 0.5}, {"release": -0.1}, {"noise_dbfs": 0.0}]
)
def test_settings_that_cannot_work_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="must be"):
        HearingSettings(**wrong)


def test_the_words_of_a_window_are_plain_values() -> None:
    (window,) = Listener().hear(np.zeros(512, np.int16))
    assert isinstance(window, VoiceWindow)
    assert type(window.voiced) is bool
    assert type(window.end_sample) is int
