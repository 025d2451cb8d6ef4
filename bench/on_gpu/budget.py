"""Time as a budget: a section has a share of what is left, and shrinks its n rather than overrun. Pure."""

from __future__ import annotations

import time
from collections.abc import Callable


class Budget:
    """`seconds` from now on `clock`."""

    def __init__(self, seconds: float, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock, self.seconds = clock, seconds
        self._began_s = clock()

    @property
    def left_s(self) -> float:
        return max(0.0, self.seconds - (self._clock() - self._began_s))

    @property
    def spent(self) -> bool:
        return self.left_s <= 0.0

    def share(self, part: float, of: float) -> Budget:
        """`part` of `of` equal shares of what is left."""
        return Budget(self.left_s * part / of, self._clock)

    def count(self, wanted: int, each_s: float, least: int = 1) -> int:
        """How many of `wanted` things that take `each_s` there is time for, `least` at least."""
        affordable = int(self.left_s / each_s) if each_s > 0 else wanted
        return max(least, min(wanted, affordable))
