"""The clock of everything that is heard: one thread per process, a slot of 20 ms per session on absolute deadlines.

    session a  │0       │1       │2       │5            late by a slot or more: media time is skipped, never
    session b      │0       │1       │2       │5        caught up in a burst; what was to be said is said later

`Timetable` decides and has no clock; `Pacer` is the thread around it. Refuses to know what goes out.
"""

from __future__ import annotations

import heapq
import logging
import sys
import threading
import time
from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

from services.gateway.session.ports import BLOCK_S

_LOG = logging.getLogger(__name__)

LATENESS_EDGES_S = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.015, 0.02, 0.04, 0.1, 0.3, 1.0)
SWITCH_INTERVAL_S = 0.0005
"""How long another thread may keep the interpreter from the pacer: beside a thread that never lets go, lateness p99 was
6.8 ms with it and 12.7 ms with Python's 5 ms."""

TELL_EVERY = 10
"""Slots between two of which the lateness is told: telling takes some 10 µs, and each session has 50 slots a second."""

Tick = Callable[[int, float], None]
"""Called with the number of the slot on the session's media clock, which skips with it, and the time."""


@dataclass(frozen=True)
class Due:
    """One session's slot that is to go out."""

    key: int
    slot: int
    late_s: float
    skipped: int


class Timetable:
    """Whose slot is due when. Pure: times are arguments, in seconds of one clock."""

    def __init__(self, block_s: float = BLOCK_S) -> None:
        self._block_s = block_s
        self._origins: dict[int, float] = {}
        self._heap: list[tuple[float, int, int]] = []
        self._next_key = 0

    def add(self, now_s: float) -> int:
        """A session whose first slot is due within a block, where the others leave the most room."""
        key, self._next_key = self._next_key, self._next_key + 1
        phase = self._free_phase()
        origin_s = now_s + (phase - now_s) % self._block_s
        self._origins[key] = origin_s
        heapq.heappush(self._heap, (origin_s, key, 0))
        return key

    def remove(self, key: int) -> None:
        """More than once does no harm."""
        self._origins.pop(key, None)

    def __len__(self) -> int:
        return len(self._origins)

    @property
    def next_s(self) -> float | None:
        """When the next slot is due; None without sessions."""
        while self._heap and self._heap[0][1] not in self._origins:
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else None

    def pop(self, now_s: float) -> Due | None:
        """The slot that is due by `now_s`, if one is; slots that were missed as a whole before it are skipped."""
        due_s = self.next_s
        if due_s is None or due_s > now_s:
            return None
        _, key, slot = heapq.heappop(self._heap)
        skipped = int((now_s - due_s) / self._block_s)
        slot += skipped
        origin_s = self._origins[key]
        late_s = now_s - (origin_s + slot * self._block_s)
        heapq.heappush(self._heap, (origin_s + (slot + 1) * self._block_s, key, slot + 1))
        return Due(key, slot, late_s, skipped)

    def _free_phase(self) -> float:
        """The middle of the widest gap between the phases there are."""
        phases = sorted(origin % self._block_s for origin in self._origins.values())
        if not phases:
            return 0.0
        gaps = [*pairwise(phases), (phases[-1], phases[0] + self._block_s)]
        low, high = max(gaps, key=lambda gap: gap[1] - gap[0])
        return (low + high) / 2 % self._block_s


class Lateness:
    """How late slots went out: counts under `LATENESS_EDGES_S` (the last above all), for a histogram."""

    def __init__(self) -> None:
        self.counts = [0] * (len(LATENESS_EDGES_S) + 1)
        self.total_s = 0.0
        self.max_s = 0.0
        self.skipped_slots = 0

    def record(self, late_s: float, skipped: int) -> None:
        self.counts[bisect_left(LATENESS_EDGES_S, late_s)] += 1
        self.total_s += late_s
        self.max_s = max(self.max_s, late_s)
        self.skipped_slots += skipped

    @property
    def slots(self) -> int:
        return sum(self.counts)


class Pacer:
    """The thread. It lives from the first session to `close`; a daemon, so that it never keeps a process alive."""

    def __init__(
        self, clock: Callable[[], float] = time.monotonic, tell: Callable[[float, int], None] | None = None
    ) -> None:
        """`tell` gets the lateness of some slots, and how many were skipped since it was last called."""
        self._clock = clock
        self._tell = tell
        self._untold_skipped = 0
        self._timetable = Timetable()
        self._ticks: dict[int, Tick] = {}
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._closed = False
        self.lateness = Lateness()

    def add(self, tick: Tick) -> int:
        """Call `tick` every 20 ms from now on, in the pacer's thread; it must take microseconds. Returns its key."""
        with self._changed:
            if self._closed:
                raise RuntimeError("the pacer is closed")
            key = self._timetable.add(self._clock())
            self._ticks[key] = tick
            if self._thread is None:
                sys.setswitchinterval(min(sys.getswitchinterval(), SWITCH_INTERVAL_S))
                self._thread = threading.Thread(target=self._run, name="pacer", daemon=True)
                self._thread.start()
            self._changed.notify()
            return key

    def remove(self, key: int) -> None:
        """Its tick is not called again, except where a call has already begun. More than once does no harm."""
        with self._changed:
            self._timetable.remove(key)
            self._ticks.pop(key, None)

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join()

    def __len__(self) -> int:
        return len(self._ticks)

    def _run(self) -> None:
        while (due := self._wait()) is not None:
            self._note(due)
            tick = self._ticks.get(due.key)
            if tick is None:
                continue
            try:
                tick(due.slot, self._clock())
            except Exception:  # the top of a thread that all sessions share: one broken session must not end the others
                _LOG.exception("a session's playout failed and is no longer paced")
                self.remove(due.key)

    def _note(self, due: Due) -> None:
        late_s = due.late_s + due.skipped * BLOCK_S
        self.lateness.record(late_s, due.skipped)
        self._untold_skipped += due.skipped
        if self._tell is not None and self.lateness.slots % TELL_EVERY == 0:
            self._tell(late_s, self._untold_skipped)
            self._untold_skipped = 0

    def _wait(self) -> Due | None:
        """The next due slot; None when closed."""
        with self._changed:
            while not self._closed:
                now_s = self._clock()
                due = self._timetable.pop(now_s)
                if due is not None:
                    return due
                next_s = self._timetable.next_s
                self._changed.wait(None if next_s is None else next_s - now_s)
            return None
