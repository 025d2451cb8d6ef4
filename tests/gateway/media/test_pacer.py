"""The timetable in virtual time, and the thread: nobody is served in bursts, whatever the machine does."""

from __future__ import annotations

import threading
from bisect import bisect_left
from itertools import accumulate, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.gateway.media.pacer import TELL_EVERY, Pacer, Timetable
from services.gateway.session.ports import BLOCK_S


def serve(timetable: Timetable, wake_s: list[float]) -> dict[int, list[tuple[float, int]]]:
    """At each waking everything that is due goes out."""
    served: dict[int, list[tuple[float, int]]] = {}
    for now_s in wake_s:
        while (due := timetable.pop(now_s)) is not None:
            served.setdefault(due.key, []).append((now_s, due.slot))
    return served


@given(st.lists(st.floats(0.0, 0.7), min_size=1, max_size=200), st.integers(1, 4))
def test_no_hundred_milliseconds_hold_more_than_six_blocks(pauses: list[float], sessions: int) -> None:
    timetable = Timetable()
    for _ in range(sessions):
        timetable.add(0.0)
    for served in serve(timetable, list(accumulate(pauses))).values():
        times = [at for at, _ in served]
        assert max(bisect_left(times, at + 0.1) - index for index, at in enumerate(times)) <= 6
        slots = [slot for _, slot in served]
        assert slots == sorted(set(slots))


def test_a_punctual_thread_skips_nothing_and_does_not_drift() -> None:
    timetable = Timetable()
    key = timetable.add(5.0)
    served = serve(timetable, [5.0 + n * 0.001 for n in range(600_000)])[key]  # ten minutes
    assert [slot for _, slot in served] == list(range(30_000))
    assert abs(served[-1][0] - (5.0 + 29_999 * BLOCK_S)) < 0.002


def test_a_stall_skips_media_time_instead_of_catching_up() -> None:
    timetable = Timetable()
    key = timetable.add(0.0)
    served = serve(timetable, [0.0, 0.02, 0.64, 0.645, 0.65, 0.66, 0.68])[key]
    assert [slot for _, slot in served] == [0, 1, 32, 33, 34]
    due = timetable.pop(0.85)
    assert due is not None
    assert (due.slot, due.skipped) == (42, 7)
    assert due.late_s < BLOCK_S


def test_sessions_are_spread_over_the_block() -> None:
    timetable = Timetable()
    for _ in range(4):
        timetable.add(100.0)
    moments: list[float] = []
    while len(moments) < 4:
        next_s = timetable.next_s
        assert next_s is not None
        timetable.pop(next_s)
        moments.append(next_s)
    gaps = [later - earlier for earlier, later in pairwise(moments)]
    assert gaps == pytest.approx([BLOCK_S / 4] * 3)


def test_a_removed_session_is_not_served() -> None:
    timetable = Timetable()
    key = timetable.add(0.0)
    timetable.remove(key)
    timetable.remove(key)
    assert timetable.next_s is None
    assert timetable.pop(1.0) is None


def test_the_thread_serves_all_sessions_and_outlives_a_broken_one(caplog: pytest.LogCaptureFixture) -> None:
    told: list[float] = []
    pacer = Pacer(tell=lambda late_s, skipped: told.append(late_s))
    slots: list[int] = []
    enough = threading.Event()

    def steady(slot: int, now_s: float) -> None:
        slots.append(slot)
        if len(slots) == 12:
            enough.set()

    def broken(slot: int, now_s: float) -> None:
        raise ValueError("no")

    pacer.add(broken)
    pacer.add(steady)
    assert enough.wait(15)
    pacer.close()
    assert len(pacer) == 1
    assert [record.message for record in caplog.records] == ["a session's playout failed and is no longer paced"]
    assert slots == sorted(set(slots))
    assert pacer.lateness.slots >= 13
    assert len(told) == pacer.lateness.slots // TELL_EVERY
    with pytest.raises(RuntimeError):
        pacer.add(steady)
