"""What holds whatever happens (I1 to I8 of the README), in storms of events and in virtual time."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.gateway.turns import table
from services.gateway.turns.events import Connected
from services.gateway.turns.settings import TurnSettings
from services.gateway.turns.states import BargeIn, Policy, State
from tests.gateway.turns.world import HAPPENINGS, World, happen, storm

NAMES = list(HAPPENINGS)
WEIGHTS = [weight for weight, _ in HAPPENINGS.values()]
SETTINGS = [
    TurnSettings(),
    replace(TurnSettings(), barge_in=BargeIn.DUCK, speculate=False),
    replace(TurnSettings(), barge_in=BargeIn.CONFIRM_ONLY, user_away_s=0.0),
    replace(TurnSettings(), policy=Policy.MANUAL),
    replace(TurnSettings(), policy=Policy.MODEL_DUPLEX),
    replace(TurnSettings(), create_response=False),
    replace(TurnSettings(), interrupt_response=False, attempts=1),
    replace(TurnSettings(), await_overlap_verdict=True, continue_after_empty=False, answer_on_resume=False),
    replace(TurnSettings(), queued_says=1, merge_s=0.0, speculations_per_turn=0, early_s=0.0),
]


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.sampled_from(NAMES), max_size=40),
    st.sampled_from(SETTINGS),
    st.integers(0, 2**32),
    st.booleans(),
)
def test_no_short_story_breaks_an_invariant(story: list[str], numbers: TurnSettings, seed: int, connects: bool) -> None:
    world, chance = World(numbers), random.Random(seed)
    if connects:
        world.tell(Connected())
    for name in story:
        happen(world, name, chance)
    world.settle()


@pytest.mark.parametrize("numbers", SETTINGS)
def test_no_long_storm_breaks_an_invariant(numbers: TurnSettings) -> None:
    visited = storm(numbers, seed=1, events=6_000)
    assert {State.LISTENING, State.THINKING, State.SPEAKING, State.RECOVERING} <= visited


def test_storms_come_into_every_state() -> None:
    visited = storm(TurnSettings(), seed=2, events=6_000)
    assert visited >= set(State) - {State.CONNECTING, State.INTERRUPTED, State.SUSPENDED}


@settings(max_examples=50, deadline=None)
@given(st.lists(st.sampled_from(SETTINGS), min_size=2, max_size=6), st.integers(0, 2**32))
def test_settings_may_change_at_any_moment(changes: list[TurnSettings], seed: int) -> None:
    world, chance = World(changes[0]), random.Random(seed)
    world.tell(Connected())
    for numbers in changes:
        world.machine.configure(numbers)
        for name in chance.choices(NAMES, WEIGHTS, k=30):
            happen(world, name, chance)
    world.settle()


def test_the_table_in_words_has_the_rules_of_the_table_in_code() -> None:
    readme = Path(table.__file__).with_name("README.md").read_text(encoding="utf-8")
    section = readme.split("## Table")[1].split("## Policies")[0]
    words = {line.split("|")[1].strip() for line in section.splitlines() if line.startswith("|")} - {"#", "---"}
    code = {rule for numbers, *_ in (*table._EVENTS, *table._TIMERS) for rule in numbers.split()}
    assert code - {"begin"} == words
