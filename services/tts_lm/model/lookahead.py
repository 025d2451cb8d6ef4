"""What a tokenizer's tokens allow at a place where text is still to come: which tokens go on from given bytes, which
pairs stand.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterator
from functools import lru_cache
from typing import Protocol


class Encoder(Protocol):
    """Byte-level BPE of one piece."""

    spelling: dict[int, bytes]
    merged: dict[bytes, int]

    def encode(self, piece: bytes, /) -> tuple[int, ...]: ...


class Lookahead:
    """Shared by all utterances of a tokenizer, because it remembers what it found out."""

    def __init__(self, bpe: Encoder) -> None:
        self._bpe = bpe
        self._tokens = sorted(bpe.merged)
        self.longest = max(map(len, self._tokens), default=1)
        self.may_follow = lru_cache(maxsize=65536)(self._may_follow)

    def beginning_with(self, start: bytes) -> Iterator[tuple[bytes, int]]:
        """Tokens longer than `start` that begin with it, and their ids."""
        for i in range(bisect.bisect_right(self._tokens, start), len(self._tokens)):
            token = self._tokens[i]
            if not token.startswith(start):
                return
            yield token, self._bpe.merged[token]

    def _may_follow(self, left: int | None, right: int) -> bool:
        """Whether `right` can stand behind `left`, or at the start of a piece: whether merging their bytes gives
        them back.
        """
        spelling = self._bpe.spelling
        if left is None:
            return self._bpe.encode(spelling[right]) == (right,)
        return self._bpe.encode(spelling[left] + spelling[right]) == (left, right)
