"""How long a silence ends a turn, what is an "mhm", and settings that cannot work."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.gateway.turns.backchannel import LexicalOverlap
from services.gateway.turns.endpoint import EndpointDelay
from services.gateway.turns.events import AudioReady, PlayoutDrained
from services.gateway.turns.settings import TurnSettings
from services.gateway.turns.states import Overlap
from tests.gateway.turns.talk import Talk

SETTINGS = TurnSettings()


def test_the_delay_follows_the_model() -> None:
    delay = EndpointDelay()
    delays = [delay.delay_s(p, SETTINGS) for p in (1.0, 0.7, 0.69, 0.3, 0.29, 0.0, None)]
    assert delays == [0.16, 0.16, 0.4, 0.4, 1.2, 1.2, 0.4]


def test_a_user_who_pauses_long_is_waited_for() -> None:
    delay = EndpointDelay()
    for _ in range(20):
        delay.observe_pause(0.7, SETTINGS)
    assert delay.delay_s(0.5, SETTINGS) == pytest.approx(0.7, abs=0.02)
    assert delay.delay_s(0.9, SETTINGS) == 0.3
    assert delay.delay_s(0.5, replace(SETTINGS, learn_pauses=False)) == 0.4


def test_one_pause_moves_what_is_learned_by_a_bounded_step() -> None:
    delay = EndpointDelay()
    delay.observe_pause(1.9, SETTINGS)
    assert delay.learned_s == pytest.approx(0.1)


def test_gaps_between_words_teach_nothing() -> None:
    delay = EndpointDelay()
    delay.observe_pause(0.1, SETTINGS)
    assert delay.learned_s == 0


def test_what_was_learned_fades_with_turns_that_ended_rightly() -> None:
    delay = EndpointDelay()
    delay.observe_pause(0.7, SETTINGS)
    before = delay.learned_s
    delay.observe_end()
    assert 0 < delay.learned_s < before


@given(st.lists(st.floats(0, 100), max_size=50), st.none() | st.floats(0, 1))
def test_no_delay_is_longer_than_the_longest(pauses: list[float], p: float | None) -> None:
    delay = EndpointDelay()
    for pause_s in pauses:
        delay.observe_pause(pause_s, SETTINGS)
    assert SETTINGS.complete_delay_s <= delay.delay_s(p, SETTINGS) <= SETTINGS.max_delay_s


def test_a_turn_whose_answer_is_heard_lets_what_was_learned_fade() -> None:
    talk = Talk()
    talk.speak(0.64)
    talk.pause(0.3)
    talk.speak(0.64)
    talk.pause(0.5)
    before = talk.machine.learned_pause_s
    talk.tell(AudioReady(talk.wanted))
    assert 0 < talk.machine.learned_pause_s < before


def test_a_silence_in_which_the_agent_spoke_teaches_nothing() -> None:
    talk = Talk()
    talk.tell(AudioReady(talk.ask()))
    talk.tell(PlayoutDrained(talk.wanted))
    talk.pause(0.5)
    talk.speak(0.64)
    assert talk.machine.learned_pause_s == 0


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("mhm", Overlap.BACKCHANNEL),
        ("Uh-huh.", Overlap.BACKCHANNEL),
        ("I see", Overlap.BACKCHANNEL),
        ("yeah yeah right", Overlap.BACKCHANNEL),
        ("嗯", Overlap.BACKCHANNEL),
        ("嗯，是的", Overlap.BACKCHANNEL),
        ("stop", Overlap.INTERRUPT),
        ("yeah but", Overlap.INTERRUPT),
        ("等一下", Overlap.INTERRUPT),
        ("不对", Overlap.INTERRUPT),
        ("what about Tuesday", Overlap.INTERRUPT),
        ("yeah yeah yeah yeah", Overlap.INTERRUPT),
        ("Tuesday", Overlap.INTERRUPT),
        ("car", Overlap.INTERRUPT),
        ("", Overlap.NOISE),
        (" … ", Overlap.NOISE),
    ],
)
def test_words_tell_listening_from_interrupting(text: str, expected: Overlap) -> None:
    assert LexicalOverlap().judge(text, final=True) is expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [("yes", None), ("", None), ("car", None), ("stop", Overlap.INTERRUPT), ("yes, but", Overlap.INTERRUPT)],
)
def test_what_may_go_on_is_not_judged_before_it_is_over(text: str, expected: Overlap | None) -> None:
    assert LexicalOverlap().judge(text, final=False) is expected


@pytest.mark.parametrize(
    "wrong",
    [
        {"stall_s": -1.0},
        {"hold_s": 0.0},
        {"complete_p": 1.5},
        {"incomplete_p": 0.8},
        {"soft_end_s": 3.0},
        {"max_delay_s": 1.0},
        {"commit_speech_s": 0.7},
        {"underrun_s": 0.2},
        {"attempts": 0},
        {"max_turn_s": float("nan")},
        {"resume_s": float("inf")},
    ],
)
def test_settings_that_cannot_work_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong)).split("_")[0]):
        replace(SETTINGS, **wrong)
