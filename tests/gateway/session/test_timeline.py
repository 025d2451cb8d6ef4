"""The milestones of a turn: told once, in order, adding up."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.telemetry import Milestone
from services.gateway.session.timeline import ORDER, Timeline


class Told:
    """A turn's span that keeps what it is told."""

    def __init__(self):
        self.milestones = []

    def milestone(self, milestone, time_s=None):
        self.milestones.append((milestone, time_s))


def test_the_steps_of_a_turn_add_up_to_the_total():
    timeline = Timeline(Told())
    timeline.open(100.0, 100.4)
    for number, milestone in enumerate(ORDER[2:]):
        assert timeline.reached(milestone, 100.5 + number / 10)
    assert list(timeline.since_speech_end_s) == list(ORDER)
    assert sum(timeline.steps_s.values()) == pytest.approx(timeline.since_speech_end_s[ORDER[-1]])
    assert timeline.since_speech_end_s[Milestone.ENDPOINT] == pytest.approx(0.4)


def test_what_speculation_made_in_advance_costs_the_person_nothing():
    told = Told()
    timeline = Timeline(told)
    timeline.reached(Milestone.BRAIN_FIRST_TOKEN, 100.1)
    timeline.reached(Milestone.TTS_TEXT_FIRST, 100.2)
    assert told.milestones == [], "nothing is told before the turn is over"
    timeline.open(100.0, 100.4)
    timeline.reached(Milestone.PLAYOUT_FIRST, 100.6)
    assert timeline.steps_s == {
        Milestone.ENDPOINT: pytest.approx(0.4),
        Milestone.BRAIN_FIRST_TOKEN: 0.0,
        Milestone.TTS_TEXT_FIRST: 0.0,
        Milestone.PLAYOUT_FIRST: pytest.approx(0.2),
    }


def test_a_milestone_counts_once():
    timeline = Timeline(Told())
    timeline.open(1.0, 1.0)
    assert timeline.reached(Milestone.PLAYOUT_FIRST, 2.0)
    assert not timeline.reached(Milestone.PLAYOUT_FIRST, 3.0)
    assert timeline.since_speech_end_s[Milestone.PLAYOUT_FIRST] == 1.0


def test_a_second_attempt_counts_from_what_was_not_told():
    timeline = Timeline(Told())
    timeline.reached(Milestone.BRAIN_FIRST_TOKEN, 0.5)
    timeline.forget_answer()
    timeline.open(1.0, 1.1)
    timeline.reached(Milestone.BRAIN_FIRST_TOKEN, 1.5)
    assert timeline.since_speech_end_s[Milestone.BRAIN_FIRST_TOKEN] == 0.5


@given(st.permutations(ORDER[2:]), st.lists(st.floats(0, 1), min_size=7, max_size=7), st.integers(0, 7))
def test_in_any_order_times_never_fall_and_always_add_up(order, gaps, opened):
    told = Told()
    timeline, now_s = Timeline(told), 10.0
    for position, (milestone, gap_s) in enumerate(zip(order, gaps, strict=True)):
        if position == opened:
            timeline.open(10.0, now_s)
        now_s += gap_s
        timeline.reached(milestone, now_s)
    timeline.open(10.0, now_s)
    times = [time_s for _, time_s in told.milestones]
    assert times == sorted(times)
    assert {milestone for milestone, _ in told.milestones} == set(ORDER)
    assert sum(timeline.steps_s.values()) == pytest.approx(max(timeline.since_speech_end_s.values()))
