"""The stream guard: each rule once by example, then all of them against a second statement of the rules."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.errors import InvalidRequest, MeshError, OutOfOrder, SequenceGap
from common.stream import Drop, Kind, Marks, Place, StreamGuard

START, INPUT, CREDIT, FLUSH = Kind.START, Kind.INPUT, Kind.SUPPLEMENT, Kind.FLUSH
STOP, RESET = Kind.STOP, Kind.RESET


def guard_after(*requests: Kind | Marks) -> StreamGuard:
    guard = StreamGuard("assigned")
    for request in requests:
        guard.accept(request if isinstance(request, Marks) else Marks(request))
    return guard


def dropped(guard: StreamGuard, marks: Marks) -> Drop | None:
    return guard.accept(marks).drop


def test_absent_marks_are_the_next_and_the_current_ones():
    guard = StreamGuard("assigned")
    places = [guard.accept(Marks(kind)).place for kind in (START, INPUT, FLUSH, START, INPUT)]
    assert places == [(0, 0), (0, 0), (0, 0), (1, 0), (1, 0)]
    assert guard.session_id == "assigned"


def test_the_first_session_that_is_named_is_the_session():
    guard = guard_after(Marks(START, session_id="mine"), Marks(INPUT), Marks(INPUT, session_id="mine"))
    assert guard.session_id == "mine"
    with pytest.raises(InvalidRequest):
        guard.accept(Marks(INPUT, session_id="other"))


def test_a_session_that_was_assigned_cannot_be_replaced():
    with pytest.raises(InvalidRequest):
        guard_after(START, Marks(INPUT, session_id="late"))


@pytest.mark.parametrize(
    "marks", [Marks(None), Marks(START, epoch=-1), Marks(START, seq=-1), Marks(START, utterance=-1)]
)
def test_a_malformed_request_is_invalid(marks):
    with pytest.raises(InvalidRequest):
        StreamGuard("assigned").accept(marks)


def test_an_endless_session_id_is_invalid():
    with pytest.raises(InvalidRequest):
        StreamGuard("assigned").accept(Marks(START, session_id="x" * 257))


def test_a_repeated_seq_is_dropped_and_does_not_count_on():
    guard = guard_after(Marks(START, seq=0), Marks(INPUT, seq=1))
    assert dropped(guard, Marks(INPUT, seq=1)) is Drop.REPEATED
    assert dropped(guard, Marks(INPUT, seq=2)) is None
    assert guard.drops[Drop.REPEATED] == 1


@pytest.mark.parametrize("seq", [1, 2, 1 << 62])
def test_a_gap_in_seq_ends_the_stream(seq):
    with pytest.raises(SequenceGap):
        StreamGuard("assigned").accept(Marks(START, seq=seq))


def test_a_stale_message_counts_on():
    guard = guard_after(Marks(START, epoch=5, seq=0))
    assert dropped(guard, Marks(INPUT, epoch=4, seq=1)) is Drop.STALE
    assert dropped(guard, Marks(INPUT, seq=2)) is None


def test_a_start_with_a_higher_epoch_cancels_all_that_is_older():
    guard = guard_after(Marks(START, epoch=3), FLUSH, Marks(START, epoch=3), FLUSH)
    verdict = guard.accept(Marks(START, epoch=9))
    assert verdict.cancelled == ((3, 0), (3, 1))
    assert verdict.place == (9, 0)


def test_the_first_start_of_an_epoch_may_name_any_utterance_and_the_next_ones_follow_it():
    guard = guard_after(Marks(START, utterance=7), FLUSH)
    assert guard.accept(Marks(START, epoch=0)).place == (0, 8)


@pytest.mark.parametrize("utterance", [0, 2])
def test_a_further_start_must_name_the_utterance_that_comes_next(utterance):
    guard = guard_after(START, FLUSH)
    with pytest.raises(OutOfOrder):
        guard.accept(Marks(START, epoch=0, utterance=utterance))


def test_a_further_start_of_an_epoch_needs_the_flush_before_it():
    guard = guard_after(START, INPUT)
    with pytest.raises(OutOfOrder):
        guard.accept(Marks(START, epoch=0))


def test_a_further_start_may_follow_an_utterance_that_ended_by_itself():
    guard = guard_after(START)
    guard.ended(Place(0, 0))
    assert guard.accept(Marks(START, epoch=0)).place == (0, 1)


def test_a_turn_has_its_epoch_to_itself():
    guard = StreamGuard("assigned", one_per_epoch=True)
    guard.accept(Marks(START))
    guard.accept(Marks(FLUSH))
    with pytest.raises(OutOfOrder):
        guard.accept(Marks(START, epoch=0))


@pytest.mark.parametrize("kind", [INPUT, FLUSH, CREDIT])
@pytest.mark.parametrize("before", [(), (START, RESET), (STOP,), (Marks(STOP, epoch=4),)])
def test_what_comes_before_any_start_or_after_reset_is_out_of_order(kind, before):
    guard = guard_after(*before)
    with pytest.raises(OutOfOrder):
        guard.accept(Marks(kind))


@pytest.mark.parametrize("kind", [INPUT, FLUSH])
@pytest.mark.parametrize("ended", [False, True])
def test_input_after_the_callers_own_flush_is_out_of_order_whether_it_ended_or_not(kind, ended):
    guard = guard_after(START, FLUSH)
    if ended:
        guard.ended(Place(0, 0))
    with pytest.raises(OutOfOrder):
        guard.accept(Marks(kind))


@pytest.mark.parametrize("kind", [INPUT, FLUSH, CREDIT])
def test_what_was_on_its_way_to_an_utterance_that_ended_by_itself_is_dropped(kind):
    guard = guard_after(START, INPUT)
    guard.ended(Place(0, 0))
    assert dropped(guard, Marks(kind)) is Drop.STALE


def test_a_flush_that_came_too_late_is_still_a_flush():
    guard = guard_after(START)
    guard.ended(Place(0, 0))
    assert dropped(guard, Marks(FLUSH)) is Drop.STALE
    with pytest.raises(OutOfOrder):
        guard.accept(Marks(INPUT))


@pytest.mark.parametrize("kind", [START, INPUT, FLUSH, CREDIT])
def test_what_is_said_to_a_stopped_epoch_is_dropped(kind):
    guard = guard_after(START, INPUT, STOP)
    assert dropped(guard, Marks(kind, epoch=0)) is Drop.STALE


def test_stop_cancels_what_runs_and_says_so_once():
    guard = guard_after(START, FLUSH, Marks(START, epoch=0))
    assert guard.accept(Marks(STOP)).cancelled == ((0, 0), (0, 1))
    assert guard.accept(Marks(STOP)).cancelled == ()


@pytest.mark.parametrize("kind", [STOP, RESET])
def test_a_stop_with_a_higher_epoch_raises_the_epoch(kind):
    guard = guard_after(START)
    assert guard.accept(Marks(kind, epoch=6)).cancelled == ((0, 0),)
    assert dropped(guard, Marks(START, epoch=6)) is Drop.STALE
    assert guard.accept(Marks(START)).place == (7, 0)


@pytest.mark.parametrize("kind", [INPUT, FLUSH, CREDIT])
def test_only_start_stop_and_reset_raise_the_epoch(kind):
    guard = guard_after(START)
    with pytest.raises(OutOfOrder):
        guard.accept(Marks(kind, epoch=1))


def test_an_older_epoch_is_dropped_even_after_reset():
    guard = guard_after(Marks(START, epoch=3), RESET)
    assert dropped(guard, Marks(INPUT, epoch=2)) is Drop.STALE


def test_credit_may_go_to_any_utterance_of_the_epoch_that_still_runs():
    guard = guard_after(START, FLUSH, Marks(START, epoch=0))
    assert guard.accept(Marks(CREDIT, utterance=0)).place == (0, 0)
    guard.ended(Place(0, 0))
    assert dropped(guard, Marks(CREDIT, utterance=0)) is Drop.STALE
    with pytest.raises(OutOfOrder):
        guard.accept(Marks(CREDIT, utterance=2))


def test_half_close_gives_up_what_was_not_flushed_and_nothing_else():
    guard = guard_after(START, FLUSH, Marks(START, epoch=0))
    assert guard.half_close() == ((0, 1),)
    assert guard.unfinished == ((0, 0),)
    assert guard_after(START, FLUSH).half_close() == ()
    assert guard_after().half_close() == ()


# The rules a second time, as questions about the history of a stream; nothing is remembered between requests.
Happening = tuple[Marks, object] | Place  # a request with what became of it, or the end of an utterance by itself


def _requests(history: list[Happening]) -> list[tuple[Marks, object]]:
    return [entry for entry in history if not isinstance(entry, Place)]


def _taken(history: list[Happening], *kinds: Kind) -> list[tuple[Kind, Place]]:
    return [(m.kind, out) for m, out in _requests(history) if isinstance(out, Place) and m.kind in kinds]


def _is_running(history: list[Happening], place: Place) -> bool:
    begun = [i for i, e in enumerate(history) if not isinstance(e, Place) and e[0].kind is START and e[1] == place]
    if not begun:
        return False
    after = history[begun[-1] + 1 :]
    halted = any(p.epoch >= place.epoch for _, p in _taken(after, STOP, RESET))
    overtaken = any(p.epoch > place.epoch for _, p in _taken(after, START))
    return not halted and not overtaken and place not in after


def expected(history: list[Happening], marks: Marks) -> Place | Drop | type[MeshError]:
    """What the rules say of the next request, read off everything that happened so far."""
    past = _requests(history)
    names = [m.session_id for m, _ in past[:1]]
    if marks.kind is None or (past and marks.session_id and marks.session_id != (names[0] or "assigned")):
        return InvalidRequest
    counted = sum(out is not Drop.REPEATED for _, out in past)
    if marks.seq is not None and marks.seq != counted:
        return SequenceGap if marks.seq > counted else Drop.REPEATED
    raised = [p.epoch for _, p in _taken(history, START)]
    raised += [m.epoch for m, out in past if m.kind in (STOP, RESET) and isinstance(out, Place) and m.epoch is not None]
    now = max(raised, default=-1)
    epoch = marks.epoch if marks.epoch is not None else now + (marks.kind is START)
    if epoch < now:
        return Drop.STALE
    turning = _taken(history, START, STOP, RESET)
    open_epoch = bool(turning) and turning[-1][0] is START
    started = [p for _, p in _taken(history, START) if p.epoch == now]
    if marks.kind in (STOP, RESET):
        return Place(max(epoch, 0), 0)
    if marks.kind is START:
        if epoch > now:
            return Place(epoch, marks.utterance or 0)
        if not open_epoch:
            return Drop.STALE
        follower = Place(now, started[-1].utterance + 1)
        settled = _was_flushed(history, started[-1]) or not _is_running(history, started[-1])
        return follower if settled and marks.utterance in (None, follower.utterance) else OutOfOrder
    since_reset = [kind for kind, _ in _taken(history, START, RESET)]
    if epoch > now or not since_reset or since_reset[-1] is RESET:
        return OutOfOrder
    if not open_epoch:
        return Drop.STALE
    place = Place(now, started[-1].utterance if marks.utterance is None else marks.utterance)
    legal = place in started if marks.kind is CREDIT else place == started[-1] and not _was_flushed(history, place)
    if not legal:
        return OutOfOrder
    return place if _is_running(history, place) else Drop.STALE


def _was_flushed(history: list[Happening], place: Place) -> bool:
    """Whether a flush in sequence came for the utterance since its start, even one that found it ended."""
    last_start = max(
        i for i, e in enumerate(history) if not isinstance(e, Place) and e[0].kind is START and e[1] == place
    )
    for marks, out in _requests(history[last_start:]):
        current = marks.epoch in (None, place.epoch) and marks.utterance in (None, place.utterance)
        if marks.kind is FLUSH and current and out is not Drop.REPEATED:
            return True
    return False


small = st.one_of(st.none(), st.integers(0, 3))
marks_strategy = st.builds(
    Marks,
    st.sampled_from([START, START, START, INPUT, INPUT, FLUSH, FLUSH, CREDIT, STOP, RESET, None]),
    st.sampled_from([None, None, None, None, None, "a", "assigned"]),
    small,
    st.one_of(st.none(), st.none(), st.integers(0, 6)),
    small,
)
likely = st.builds(Marks, st.sampled_from([START, INPUT, FLUSH, FLUSH, CREDIT, STOP, RESET]), epoch=small)
ends = st.just("an end")


@settings(max_examples=600, deadline=None, database=None)
@given(st.lists(st.one_of(likely, likely, marks_strategy, ends), max_size=14))
def test_the_guard_says_what_the_rules_say(steps):
    guard, history = StreamGuard("assigned"), []
    for step in steps:
        if step == "an end":
            for place in guard.unfinished[:1]:
                guard.ended(place)
                history.append(place)
            continue
        before, want = guard.epoch, expected(history, step)
        if isinstance(want, type):
            with pytest.raises(want):
                guard.accept(step)
            return
        running = [p for _, p in _taken(history, START) if _is_running(history, p)]
        verdict = guard.accept(step)
        if verdict.kind in (STOP, RESET):
            assert verdict.drop is want if isinstance(want, Drop) else verdict.place.epoch == want.epoch
        else:
            assert (verdict.drop or verdict.place) == want
        history.append((step, want))
        assert set(verdict.cancelled) == {p for p in running if not _is_running(history, p)}
        assert guard.epoch >= before
        assert set(guard.unfinished) == {p for _, p in _taken(history, START) if _is_running(history, p)}


@settings(deadline=None, database=None)
@given(st.lists(st.tuples(st.booleans(), st.integers(0, 4)), min_size=1, max_size=30))
def test_what_was_sent_in_order_is_accepted_and_nothing_twice(plan):
    """A well-behaved caller, each message sent 1 + repeats times: every message is taken exactly once."""
    guard, taken = StreamGuard("assigned"), []
    script = [
        kind for flush_first, inputs in plan for kind in (START, *[INPUT] * inputs, FLUSH if flush_first else STOP)
    ]
    for seq, kind in enumerate(script):
        for _ in range(1 + seq % 3):
            verdict = guard.accept(Marks(kind, seq=seq))
            if verdict.drop is None:
                taken.append(kind)
    assert taken == script
    assert guard.drops[Drop.STALE] == 0
