"""What a process holds while time passes: memory, threads, open files; and whether any of it only ever grows.

Reads /proc, so it costs those processes nothing. Pure but for that.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

MOST_PAIRS = 200_000  # of samples that a slope is taken from


@dataclass(frozen=True)
class Holding:
    """What a process holds at one moment."""

    at_s: float
    memory_mib: float  # resident
    threads: int
    open_files: int


@dataclass
class Watched:
    """One process and what was seen of it."""

    name: str
    pid: int
    seen: list[Holding] = field(default_factory=list)

    def look(self) -> None:
        """Note what it holds now. FileNotFoundError when it is gone."""
        known = dict(
            line.split(":", 1) for line in Path(f"/proc/{self.pid}/status").read_text(encoding="utf-8").splitlines()
        )
        memory_mib = int(known["VmRSS"].split()[0]) / 1024
        files = len(os.listdir(f"/proc/{self.pid}/fd"))
        self.seen.append(Holding(time.monotonic(), memory_mib, int(known["Threads"]), files))

    def since(self, at_s: float) -> list[Holding]:
        """From that moment on."""
        return [one for one in self.seen if one.at_s >= at_s]


async def watch(processes: Sequence[Watched], every_s: float) -> None:
    """Look at all of them again and again, until cancelled."""
    while True:
        for one in processes:
            one.look()
        await asyncio.sleep(every_s)


def slope_per_hour(seen: Sequence[tuple[float, float]]) -> float:
    """By how much a value grows in an hour: the median slope of all pairs of samples (Theil and Sen), which a few
    outliers do not move. 0 with fewer than two samples."""
    step = max(1, round((len(seen) ** 2 / 2 / MOST_PAIRS) ** 0.5))
    thinned = seen[::step]
    slopes = [
        (later - earlier) / (later_s - earlier_s)
        for number, (earlier_s, earlier) in enumerate(thinned)
        for later_s, later in thinned[number + 1 :]
        if later_s > earlier_s
    ]
    return median(slopes) * 3600 if slopes else 0.0
