"""Slots: the rows of preallocated buffers, leased one at a time and never to two at once.

A lease names a slot and a generation; what comes back late from a device carries both, and is dropped when the slot has
been leased again since. Pure, and for one thread. It refuses to know what lies in a slot.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from common.errors import Overloaded


@dataclass(frozen=True, slots=True)
class Lease:
    """A slot for one tenant. `generation` rises each time the slot is leased."""

    slot: int
    generation: int


class SlotPool:
    """`total` slots, numbered from 0. The one that has been free longest goes first, so that late results of its last
    tenant have had the most time to arrive and be dropped."""

    def __init__(self, total: int) -> None:
        if total < 1:
            raise ValueError(f"a pool needs at least one slot, not {total}")
        self.total = total
        self._free = deque(range(total))
        self._generations = [0] * total
        self._leased: set[int] = set()

    @property
    def free_count(self) -> int:
        """Slots that can be leased now."""
        return len(self._free)

    @property
    def in_use_count(self) -> int:
        """Slots that are leased now."""
        return len(self._leased)

    def lease(self, retry_after_s: float = 1.0) -> Lease:
        """Take a slot. Overloaded when all are taken; it never waits."""
        if not self._free:
            raise Overloaded(f"All {self.total} slots are taken.", retry_after_s=retry_after_s)
        slot = self._free.popleft()
        self._leased.add(slot)
        self._generations[slot] += 1
        return Lease(slot, self._generations[slot])

    def holds(self, lease: Lease) -> bool:
        """Whether that lease still runs; results and cancels for one that does not are dropped."""
        return lease.slot in self._leased and self._generations[lease.slot] == lease.generation

    def release(self, lease: Lease) -> None:
        """Give a slot back. RuntimeError when the lease does not run: given back twice, or never made here."""
        if not (0 <= lease.slot < self.total) or not self.holds(lease):
            raise RuntimeError(f"slot {lease.slot} is not leased as generation {lease.generation}")
        self._leased.remove(lease.slot)
        self._free.append(lease.slot)
