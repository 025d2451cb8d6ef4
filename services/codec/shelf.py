"""Which row of the state keeps what: a bounded shelf of states, least recently used first to go. Pure bookkeeping."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable


class Shelf:
    def __init__(self, first_row: int, row_count: int) -> None:
        self._free = list(range(first_row + row_count - 1, first_row - 1, -1))
        self._rows: OrderedDict[Hashable, int] = OrderedDict()

    def find(self, key: Hashable) -> int | None:
        """The row that keeps `key`, now the most recently used."""
        if key not in self._rows:
            return None
        self._rows.move_to_end(key)
        return self._rows[key]

    def place(self, key: Hashable) -> int | None:
        """A row for `key`, taken from the least recently used when none is free; None when the shelf has no rows."""
        if (row := self.find(key)) is not None:
            return row
        if self._free:
            row = self._free.pop()
        elif self._rows:
            row = self._rows.popitem(last=False)[1]
        else:
            return None
        self._rows[key] = row
        return row

    def remove(self, key: Hashable) -> None:
        if (row := self._rows.pop(key, None)) is not None:
            self._free.append(row)
