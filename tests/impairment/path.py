"""What one direction of a network does to what is sent over it. Pure: times are arguments, chance is seeded."""

from __future__ import annotations

import random
from dataclasses import dataclass


@dataclass(frozen=True)
class Impairment:
    """Nothing set: a perfect network. Times in seconds from the path's first packet, shares from 0 to 1."""

    delay_s: float = 0.0
    jitter_s: float = 0.0  # uniformly more, up to this
    in_order: bool = False  # jitter overtakes nothing: what was sent before arrives before
    loss: float = 0.0
    duplicate: float = 0.0
    reorder: float = 0.0  # this share comes `reorder_s` later than it would
    reorder_s: float = 0.03
    bytes_per_s: float | None = None
    queue_s: float = 1.0  # what would wait longer for bandwidth is dropped
    outages: tuple[tuple[float, float], ...] = ()  # from, to: what is sent then is lost
    stalls: tuple[tuple[float, float], ...] = ()  # from, to: what would arrive then arrives at its end, all at once


@dataclass
class Fate:
    """How the packets of one direction fared."""

    sent: int = 0
    lost: int = 0
    duplicated: int = 0


class Path:
    """One direction."""

    def __init__(self, impairment: Impairment, seed: int = 0) -> None:
        self.impairment = impairment
        self.fate = Fate()
        self._chance = random.Random(seed)
        self._began_s: float | None = None
        self._free_s = 0.0  # when the bandwidth is there for the next
        self._last_s = 0.0  # the latest arrival so far

    def arrivals(self, size: int, now_s: float, *, may_be_lost: bool = True) -> list[float]:
        """When a packet of `size` bytes sent at `now_s` arrives: never, once, or twice."""
        how = self.impairment
        if self._began_s is None:
            self._began_s = now_s
        self.fate.sent += 1
        waited_s = self._bandwidth(size, now_s)
        is_lost = self._chance.random() < how.loss
        if may_be_lost and (is_lost or waited_s is None or self._within(how.outages, now_s) is not None):
            self.fate.lost += 1
            return []
        copies = 1 + (self._chance.random() < how.duplicate)
        self.fate.duplicated += copies - 1
        return [self._arrival(now_s + (waited_s or 0.0)) for _ in range(copies)]

    def _arrival(self, leaves_s: float) -> float:
        how = self.impairment
        at_s = leaves_s + how.delay_s + self._chance.random() * how.jitter_s
        if self._chance.random() < how.reorder:
            at_s += how.reorder_s
        stall_end_s = self._within(how.stalls, at_s)
        if stall_end_s is not None:
            at_s = stall_end_s
        if how.in_order:
            at_s = max(at_s, self._last_s)
        self._last_s = max(at_s, self._last_s)
        return at_s

    def _bandwidth(self, size: int, now_s: float) -> float | None:
        """How long until it has been put on the wire; None when too much waits already."""
        rate = self.impairment.bytes_per_s
        if rate is None:
            return 0.0
        waits_s = max(0.0, self._free_s - now_s)
        if waits_s > self.impairment.queue_s:
            return None
        self._free_s = now_s + waits_s + size / rate
        return self._free_s - now_s

    def _within(self, spans: tuple[tuple[float, float], ...], at_s: float) -> float | None:
        """The end of the span that `at_s` lies in, on the same clock."""
        began_s = self._began_s or 0.0
        for start_s, end_s in spans:
            if began_s + start_s <= at_s < began_s + end_s:
                return began_s + end_s
        return None
