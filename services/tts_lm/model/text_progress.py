"""How much of the caller's text lies behind each token: token counts → characters as the caller wrote them.

Between text and tokens stand the removal of special spellings and leading whitespace, a voice's repertoire and Unicode
normalisation. Each delta leaves an anchor (normalised characters, the caller's characters); between two anchors
characters are counted one for one and never beyond the later one, so ordinary text is exact and all else is right again
at the next anchor.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable


class TextProgress:
    """Anchors in, token ends out. Nothing is ever taken back."""

    def __init__(self) -> None:
        self._anchors: deque[tuple[int, int]] = deque([(0, 0)])
        self._characters = 0  # normalised, of the tokens released
        self._ends: list[int] = []

    def taken(self, normal: int, written: int) -> None:
        """So many normalised characters are `written` characters of the caller."""
        last = self._anchors[-1]
        anchor = max(normal, last[0]), max(written, last[1])
        if anchor != last:
            self._anchors.append(anchor)

    def released(self, spellings: Iterable[bytes]) -> None:
        """Tokens that have become final, by their bytes."""
        for spelling in spellings:
            self._characters += sum(byte & 0xC0 != 0x80 for byte in spelling)
            while len(self._anchors) > 1 and self._anchors[1][0] <= self._characters:
                self._anchors.popleft()
            normal, written = self._anchors[0]
            limit = self._anchors[1][1] if len(self._anchors) > 1 else written
            self._ends.append(min(written + self._characters - normal, limit))

    def offset(self, token_count: int) -> int:
        """Characters of the caller's text behind the first `token_count` tokens."""
        return self._ends[min(token_count, len(self._ends)) - 1] if token_count and self._ends else 0
