"""What may be spoken, and which characters of the original it stands for. Pure."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Piece:
    """Spoken text and the range of the original that it stands for, in characters from the utterance's first.

    As long as its range, it is that range, character by character; otherwise it stands for it as a whole. Ranges rise
    and never overlap; what lies between two of them is not spoken.
    """

    text: str
    original_start: int
    original_end: int

    @property
    def is_verbatim(self) -> bool:
        """Whether each character stands for one of the original."""
        return len(self.text) == self.original_end - self.original_start


class OffsetMap:
    """Positions in what was spoken → positions in the original. Holds one entry for each unbroken stretch."""

    def __init__(self) -> None:
        self.spoken_length = 0
        self._spoken_ends: list[int] = []
        self._original_ends: list[int] = []
        self._is_verbatim: list[bool] = []

    def add(self, pieces: Iterable[Piece]) -> str:
        """More was spoken; returns its text."""
        told = tuple(pieces)
        for piece in told:
            self._add(piece)
        return "".join(piece.text for piece in told)

    def original(self, spoken: int) -> int:
        """How far in the original one is who has read so many spoken characters. Never falls as `spoken` rises. Of what
        stands for its range as a whole nothing counts as read before all of it is; what was left out counts with the
        next that is spoken."""
        place = bisect_left(self._spoken_ends, spoken)
        if place == len(self._spoken_ends):
            return self._original_ends[-1] if self._original_ends else 0
        if spoken == self._spoken_ends[place]:
            return self._original_ends[place]
        before = self._original_ends[place - 1] if place else 0
        if not self._is_verbatim[place]:
            return before
        first = self._spoken_ends[place - 1] if place else 0
        if spoken <= first:
            return before
        return self._original_ends[place] - (self._spoken_ends[place] - spoken)

    def _add(self, piece: Piece) -> None:
        if not piece.text:
            return
        joins = (
            self._is_verbatim
            and self._is_verbatim[-1]
            and piece.is_verbatim
            and self._original_ends[-1] == piece.original_start
        )
        self.spoken_length += len(piece.text)
        if joins:
            self._spoken_ends[-1], self._original_ends[-1] = self.spoken_length, piece.original_end
            return
        self._spoken_ends.append(self.spoken_length)
        self._original_ends.append(piece.original_end)
        self._is_verbatim.append(piece.is_verbatim)
