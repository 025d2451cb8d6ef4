"""Who owns which page of the KV pool. Pure bookkeeping: no tensors, no model.

A sequence's pages are kept contiguous whenever that is possible, because contiguous keys are read in place; when its
next page is taken by another, it goes on elsewhere and is read through its page list.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise


@dataclass
class Pages:
    """The pages of one sequence, in order. The first `borrowed` belong to somebody else and are only read."""

    numbers: list[int] = field(default_factory=list)
    contiguous: bool = True
    borrowed: int = 0

    def borrow(self, numbers: Sequence[int]) -> None:
        """Begin with pages of somebody who keeps them until these are released."""
        assert not self.numbers, "pages are borrowed before any is owned"
        self.numbers.extend(numbers)
        self.borrowed = len(numbers)
        self.contiguous = all(b == a + 1 for a, b in pairwise(numbers))


class PageAllocator:
    """`page_count` pages of `page_size` positions each."""

    def __init__(self, page_count: int, page_size: int) -> None:
        assert min(page_count, page_size) > 0
        self.page_size = page_size
        self.page_count = page_count
        self.free_count = page_count
        self._runs = {0: page_count}  # free pages: first of a run → how many
        self._ends = {page_count: 0}  # the same by the page behind its last

    def grow(self, pages: Pages, position_count: int) -> bool:
        """Make room for `position_count` positions in all; False, and nothing taken, when the pool cannot."""
        wanted = self.missing(pages, position_count)
        if wanted > self.free_count:
            return False
        for left in range(wanted, 0, -1):
            self._take(pages, self._next(pages, left))
        return True

    def missing(self, pages: Pages, position_count: int) -> int:
        """Pages that `position_count` positions take beyond those it has."""
        return -(-position_count // self.page_size) - len(pages.numbers)

    def release(self, pages: Pages) -> None:
        """Give back what it owns; `pages` is empty afterwards."""
        owned = pages.numbers[pages.borrowed :]
        for number in owned:
            self._give(number)
        self.free_count += len(owned)
        pages.numbers.clear()
        pages.contiguous, pages.borrowed = True, 0

    def _take(self, pages: Pages, number: int) -> None:
        start = number if number in self._runs else self._run_of(number)
        length = self._runs.pop(start)
        del self._ends[start + length]
        self._keep(start, number - start)
        self._keep(number + 1, start + length - number - 1)
        if pages.numbers and number != pages.numbers[-1] + 1:
            pages.contiguous = False
        self.free_count -= 1
        pages.numbers.append(number)

    def _give(self, number: int) -> None:
        """Free again, and one run with its neighbours that are."""
        assert number not in self._runs, "a page was given back twice"
        start = self._ends.pop(number, number)
        self._runs.pop(start, None)
        length = number - start + 1
        behind = self._runs.pop(number + 1, 0)
        if behind:
            del self._ends[number + 1 + behind]
        self._keep(start, length + behind)

    def _keep(self, start: int, length: int) -> None:
        if length:
            self._runs[start] = length
            self._ends[start + length] = start

    def _run_of(self, number: int) -> int:
        return next(start for start, length in self._runs.items() if start <= number < start + length)

    def _next(self, pages: Pages, wanted: int) -> int:
        if pages.numbers:
            neighbour = pages.numbers[-1] + 1
            if neighbour in self._runs:  # what lies before it is taken, so that a run begins there or nowhere
                return neighbour
        start, length = max(self._runs.items(), key=lambda run: (run[1], -run[0]))
        if pages.numbers:
            return start + length - 1  # far from whoever grows into this run from its left
        # A newcomer starts in the middle, so that the neighbour on the left keeps half of the run to grow into.
        return start if start == 0 else start + min(length // 2, max(0, length - wanted))
