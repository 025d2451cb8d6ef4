"""When the first packet may go, when sound pauses and goes on, and how much is made ahead."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.gateway.turns.gate import FirstPacketGate
from services.gateway.turns.lead import Credit, Lead, leading_silence
from services.gateway.turns.settings import TurnSettings

SETTINGS = TurnSettings()


def opened_after(tokens: list[str], gap_s: float) -> int | None:
    """How many tokens a gate has seen when it opens, ticked as it asks to be."""
    gate, now_s = FirstPacketGate(SETTINGS), 50.0
    for count, token in enumerate(tokens, 1):
        if gate.due_s is not None and gate.due_s <= now_s and gate.tick(gate.due_s):
            return count - 1
        if gate.add(token, now_s):
            return count
        now_s += gap_s
    return None


@pytest.mark.parametrize(
    ("tokens", "gap_s", "expected"),
    [
        (["The", " weather", " is", " fine"], 0.01, 3),
        (["The", " weather", " is", " fine", " to", "day"], 0.035, 4),
        (["The", " weather", " is", " fine"], 0.2, 2),
        (["Yes", ".", " It"], 0.01, 2),
        (["3", ".", "1", "4", " is"], 0.01, 5),
        (["In", " ", "3"], 0.01, 3),
        (["Unbe", "liev", "ably", " good"], 0.01, 4),
        (["今", "天"], 0.13, 1),
        (["好", "。"], 0.01, 2),
        (["“", "Oh", "!"], 0.01, 3),
        (["...", "..."], 0.01, None),
    ],
)
def test_the_gate_opens_with_enough_text_and_a_whole_word(
    tokens: list[str], gap_s: float, expected: int | None
) -> None:
    assert opened_after(tokens, gap_s) == expected


def test_the_gate_opens_with_the_end_whatever_there_is() -> None:
    gate = FirstPacketGate(SETTINGS)
    assert not gate.add("Hm", 1.0)
    assert gate.finish(1.01)
    assert gate.open
    assert gate.due_s is None
    assert gate.waited_s == pytest.approx(0.01)


def test_the_gate_waits_for_no_clock_while_a_word_is_unfinished() -> None:
    gate = FirstPacketGate(SETTINGS)
    gate.add("Unbe", 1.0)
    assert gate.due_s == pytest.approx(1.12)
    assert not gate.tick(1.12)
    assert gate.due_s is None
    assert gate.add("lievable ", 1.5)


def test_an_endless_word_opens_the_gate() -> None:
    gate = FirstPacketGate(SETTINGS)
    assert [gate.add("xxxxxxxx", 1.0 + index / 10) for index in range(7)][-1]


@given(st.lists(st.text(max_size=5), max_size=20), st.floats(0, 0.3))
def test_the_gate_once_open_stays_open(tokens: list[str], gap_s: float) -> None:
    gate, was_open = FirstPacketGate(SETTINGS), False
    for index, token in enumerate(tokens):
        now = gate.add(token, 10 + index * gap_s)
        assert now or not was_open
        was_open = now
    assert gate.waited_s >= 0


def test_a_fast_codec_begins_with_one_packet_and_a_slow_one_with_two() -> None:
    lead = Lead(SETTINGS)
    assert not lead.may_begin(0.04, done=False)
    assert lead.may_begin(0.08, done=False, rtf=0.3)
    assert not lead.may_begin(0.08, done=False, rtf=0.9)
    assert lead.may_begin(0.16, done=False, rtf=0.9)
    assert lead.may_begin(0.01, done=True)


def test_a_voice_that_runs_dry_pauses_once_and_goes_on_with_enough() -> None:
    lead = Lead(SETTINGS)
    assert lead.plays(0.2, False, 1.0)
    assert not lead.plays(0.03, False, 1.1)
    assert not lead.plays(0.08, False, 1.3)
    assert lead.plays(0.12, False, 1.4)
    assert lead.plays(0.06, False, 1.5)
    assert (lead.underruns, lead.paused_s) == (1, pytest.approx(0.3))


def test_the_end_of_an_answer_is_no_underrun() -> None:
    lead = Lead(SETTINGS)
    assert lead.plays(0.02, True, 1.0)
    assert lead.underruns == 0
    assert not lead.plays(0.0, False, 2.0)
    assert lead.plays(0.01, True, 2.1)


def test_a_filler_is_due_in_a_long_pause_only_where_one_is_wanted() -> None:
    silent, filling = Lead(SETTINGS), Lead(replace(SETTINGS, filler_after_s=0.7))
    for lead in (silent, filling):
        lead.plays(0.0, False, 1.0)
    assert not silent.filler_due(5.0)
    assert not filling.filler_due(1.6)
    assert filling.filler_due(1.8)


@given(st.lists(st.floats(0, 0.2), max_size=60))
def test_credit_never_runs_further_ahead_than_it_may(steps: list[float]) -> None:
    credit, sent_s = Credit(SETTINGS), 0.0
    for step in [0.0, *steps]:
        sent_s += step
        assert credit.grant(sent_s) >= 0
        ahead_s = credit.granted_frames * 0.08 - sent_s
        assert SETTINGS.credit_s - 1e-6 <= ahead_s < SETTINGS.credit_s + 0.08


def test_silence_before_the_first_sound_is_cut_to_what_may_stay() -> None:
    loud = [3000] * 100
    assert leading_silence([0] * 2400 + loud, 24_000, SETTINGS) == 2400 - 960
    assert leading_silence([50] * 900 + loud, 24_000, SETTINGS) == 0
    assert leading_silence([0] * 1920, 24_000, SETTINGS) == 960
