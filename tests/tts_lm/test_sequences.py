"""Bookkeeping without tensors: pages, the scheduler, guards, limits and the packet ramp."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.slots import Lease
from common.stream import FinishReason
from services.tts_lm.guards import Limits, RunawayGuard
from services.tts_lm.model.prompt import Prompt, PromptRow, Script
from services.tts_lm.pages import PageAllocator, Pages
from services.tts_lm.prefix import Fill
from services.tts_lm.scheduler import Policy, StepPlan, plan_step
from services.tts_lm.sequence import Sequence, Terms
from tests.tts_lm.stored import GREEDY

EOS = 9
FRAME_S = 0.08
TERMS = Terms(1000, 4096, None, 512, (1,), None, False, EOS, FRAME_S)


class Ids:
    """The two ids that a script needs of a configuration."""

    tts_eos, tts_pad = 100, 101


def sequence(slot: int = 0, head: int = 3, text: int = 0, finished: bool = False, **terms: object) -> Sequence:
    script = Script(Ids())  # type: ignore[arg-type]
    script.feed(list(range(text)))
    if finished:
        script.finish()
    prompt = Prompt(tuple(PromptRow(0) for _ in range(head)), "streaming", None, (), 1, 2, Ids.tts_pad)
    return Sequence(Lease(slot, 1), prompt, script, GREEDY, None, replace(TERMS, **terms))


def spoken(s: Sequence, codes: int = 1) -> None:
    """One step that gives a frame beginning with `codes`."""
    s.advance(s.next_row_count())
    s.sampled((codes, 0))


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 40))
def test_no_page_has_two_owners_and_none_is_lost(seed: int, page_count: int) -> None:
    generator, allocator = random.Random(seed), PageAllocator(page_count, 4)
    owners: list[tuple[Pages, int]] = [(Pages(), 0) for _ in range(5)]
    for _ in range(80):
        i = generator.randrange(5)
        pages, length = owners[i]
        if generator.random() < 0.2:
            allocator.release(pages)
            owners[i] = (pages, 0)
        else:
            wanted = length + generator.choice([1, 1, 1, 7, 30])
            free, held = allocator.free_count, list(pages.numbers)
            if allocator.grow(pages, wanted):
                owners[i] = (pages, wanted)
                assert len(pages.numbers) * 4 >= wanted
            else:
                assert (allocator.free_count, pages.numbers) == (free, held)
        taken = [number for pages, _ in owners for number in pages.numbers]
        assert len(taken) == len(set(taken)) == page_count - allocator.free_count
        for pages, _ in owners:
            steps = [b - a for a, b in zip(pages.numbers, pages.numbers[1:], strict=False)]
            assert pages.contiguous == all(step == 1 for step in steps)


def test_sequences_that_grow_side_by_side_stay_contiguous() -> None:
    allocator = PageAllocator(64, 4)
    owners = [Pages() for _ in range(4)]
    for length in range(1, 4 * 8 + 1):
        for pages in owners:
            assert allocator.grow(pages, length)
    assert all(pages.contiguous for pages in owners)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.integers(1, 400)), max_size=20), st.integers(1, 600))
def test_a_plan_holds_each_ready_sequence_at_most_once(given_rows: list[tuple[bool, int]], budget: int) -> None:
    ready = [sequence(i, head=head, text=4) for i, (_, head) in enumerate(given_rows)]
    for s, (prefilled, _) in zip(ready, given_rows, strict=True):
        if prefilled:
            spoken(s)

    plan = plan_step(ready, policy=Policy(prefill_rows=budget))

    assert len(set(map(id, plan.sequences))) == len(plan.sequences)
    assert list(plan.steps) == [s for s in ready if s.prefilled]  # nobody has been heard yet
    assert all(not s.prefilled for s in plan.prefills)
    rows = [s.next_row_count() for s in plan.prefills]
    assert sum(rows[1:]) + (rows[0] if rows else 0) <= max(budget, rows[0] if rows else 0)
    if any(not s.prefilled for s in ready):
        assert plan.prefills[0] is next(s for s in ready if not s.prefilled)


def heard(slot: int, lead_s: float, now_s: float = 50.0) -> Sequence:
    """One that speaks and is so far ahead of its listener at `now_s`."""
    s = sequence(slot, text=40)
    spoken(s)
    s.take_packet(pausing=True, now_s=now_s + lead_s - FRAME_S)
    return s


def slots(plan: StepPlan) -> list[int]:
    return [s.slot for s in plan.sequences]


def test_whoever_is_unheard_goes_first_and_those_with_a_lead_sit_out() -> None:
    rich, poor, urgent = heard(0, 1.4), heard(1, 0.5), heard(2, 0.1)
    new, begun = sequence(3, text=4), sequence(4, text=4, packet_ramp=(2,))
    spoken(begun)
    assert slots(plan_step([rich, poor, urgent, new, begun], 50.0)) == [3, 4, 2]
    assert slots(plan_step([rich, poor, urgent], 50.0)) == [2, 1]
    assert slots(plan_step([rich, poor, urgent], 50.0, Policy(max_batch=1))) == [2]
    assert slots(plan_step([rich], 50.0)) == [0]  # nobody needs the step
    assert slots(plan_step([rich, poor], 52.0)) == [0, 1]  # lead is lost by the clock


def test_among_those_that_have_nothing_left_the_longest_unserved_goes_first() -> None:
    dry = [heard(slot, -1.0 - slot) for slot in range(3)]
    for s, turn in zip(dry, (7, 3, 5), strict=True):
        s.served_turn = turn
    assert slots(plan_step(dry, 50.0, Policy(max_batch=2))) == [1, 2]


def test_prefixes_run_before_those_behind_them_and_within_the_budget() -> None:
    shared, other = Fill((PromptRow(1),) * 30, None, Pages()), Fill((PromptRow(2),) * 30, None, Pages())
    new = [sequence(i, text=4) for i in range(3)]
    for s, fill in zip(new, (shared, shared, other), strict=True):
        s.fill, s.position = fill, 3
    assert plan_step(new, policy=Policy(prefill_rows=32)) == StepPlan(tuple(new[:2]), (), (shared,))
    assert plan_step(new, pending=[other]).fills == (shared, other)
    assert plan_step((), policy=Policy(prefill_rows=1), pending=[shared, other]) == StepPlan(fills=(shared,))
    shared.done = True
    assert plan_step(new[:2]).fills == ()


def test_the_first_frame_needs_one_token_and_each_frame_one_more() -> None:
    s = sequence()
    assert s.lacks_text()
    s.script.feed([5])
    assert not s.lacks_text()
    spoken(s)
    assert s.lacks_text()
    s.script.feed([6])
    assert not s.lacks_text()
    assert s.next_text() == 6


def test_end_of_speech_is_masked_until_the_end_of_text_was_read() -> None:
    s = sequence(text=3)
    masked = []
    for step in range(7):
        if step == 1:
            s.script.finish()
        masked.append(s.eos_masked())
        spoken(s)
    # Rows read after each step: t0, t1, t2, eos: the fourth sample is the first that may end speech.
    assert masked == [True, True, True, False, False, False, False]


def test_the_reference_behaviour_masks_two_frames_only() -> None:
    s = sequence(text=9, reference_behaviour=True)
    masked = []
    for _ in range(4):
        masked.append(s.eos_masked())
        spoken(s)
    assert masked == [True, True, False, False]


def test_tokens_are_counted_when_they_are_read() -> None:
    s = sequence(text=2, finished=True)
    counts = []
    for _ in range(4):
        spoken(s)
        counts.append(s.text_token_count())
    assert counts == [1, 2, 2, 2]


@pytest.mark.parametrize("limit", [1, 2, 5])
def test_max_frames_are_delivered_and_end_with_length(limit: int) -> None:
    s = sequence(text=9, max_frames=limit)
    while s.end is None:
        spoken(s)
    assert (s.end, s.frame_count) == (FinishReason.LENGTH, limit)


def test_a_full_cache_ends_with_length() -> None:
    s = sequence(text=50, max_positions=10)
    while s.end is None:
        spoken(s)
    assert (s.end, s.position) == (FinishReason.LENGTH, 10)


def test_more_frames_than_the_text_can_need_end_as_runaway() -> None:
    s, generator = sequence(text=2, finished=True), random.Random(0)
    while s.end is None:
        spoken(s, generator.randrange(8))
    limits = Limits()
    assert (s.end, s.frame_count) == (FinishReason.RUNAWAY, limits.budget_base + 2 * limits.budget_per_token)


def test_a_code_that_is_held_ends_as_runaway() -> None:
    guard, limits = RunawayGuard(), Limits()
    ends = [guard.frame(3, n, 1000, text_finished=True) for n in range(1, 200)]
    assert ends.index(True) == limits.held_code  # one frame to hold, then that many repeats


def test_a_loop_ends_as_runaway_and_speech_does_not() -> None:
    loop, speech, limits = RunawayGuard(), RunawayGuard(), Limits()
    generator = random.Random(1)
    looped = [loop.frame(n % 20, n, 10_000, text_finished=True) for n in range(400)]
    assert looped.index(True) == limits.loop + 19
    assert not any(speech.frame(generator.randrange(40), n, 10_000, text_finished=True) for n in range(3000))


def test_nothing_runs_away_while_text_is_still_coming() -> None:
    guard = RunawayGuard()
    assert not any(guard.frame(3, n, 0, text_finished=False) for n in range(1000))


def test_the_reference_behaviour_has_no_guards() -> None:
    s = sequence(text=1, finished=True, reference_behaviour=True, max_frames=300)
    while s.end is None:
        spoken(s)
    assert (s.end, s.frame_count) == (FinishReason.LENGTH, 300)


def test_packets_follow_the_ramp_and_a_pause_empties_them() -> None:
    s = sequence(text=40, packet_ramp=(1, 2, 4))
    sizes = []
    for step in range(14):
        spoken(s, step % 7)
        packet = s.take_packet(pausing=step == 9)
        if packet:
            sizes.append((packet.first_frame_index, len(packet.codes)))
    assert sizes == [(0, 1), (1, 2), (3, 4), (7, 3), (10, 4)]


@pytest.mark.parametrize(
    ("step_s", "sizes"), [(0.005, [1, 2, 4, 4, 4]), (0.05, [1, 1, 1, 2, 1]), (0.1, [1, 1, 1, 1, 1])]
)
def test_a_packet_leaves_early_when_its_listener_would_run_dry(step_s: float, sizes: list[int]) -> None:
    """A machine far faster than speech keeps the ramp; one that is hardly faster reaches it later, one that is slower
    never; the codes are the same."""
    s, sent, now_s = sequence(text=60, packet_ramp=(1, 2, 4)), [], 0.0
    while len(sent) < 5:
        now_s += step_s
        spoken(s)
        if packet := s.take_packet(pausing=False, now_s=now_s):
            sent.append(len(packet.codes))
    assert sent == sizes


def test_a_first_packet_is_as_large_as_asked_for() -> None:
    s = sequence(text=60, packet_ramp=(3,))
    made = []
    for turn in range(3):
        spoken(s)
        made.append(s.take_packet(pausing=False, now_s=turn * 1.0))
    assert [packet and len(packet.codes) for packet in made] == [None, None, 3]


def test_credit_counts_from_the_start_and_an_unread_pile_stops_the_row() -> None:
    s = sequence(text=40, max_lead_frames=2, unread_frame_limit=4)
    lacking = []
    for _ in range(2):
        spoken(s)
        lacking.append(s.lacks_credit())
    s.credit = 9
    lacking.append(s.lacks_credit())
    spoken(s)
    spoken(s)
    lacking.append(s.lacks_credit())
    s.read_count = 1
    assert [*lacking, s.lacks_credit()] == [False, True, False, True, False]
