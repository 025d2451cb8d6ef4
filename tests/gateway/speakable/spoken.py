"""What a filter says of a text that comes in pieces."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise

from services.gateway.speakable import OffsetMap, Piece, SpeakableFilter


def pieces_of(deltas: Iterable[str]) -> list[Piece]:
    speakable = SpeakableFilter()
    pieces = [piece for delta in deltas for piece in speakable.feed(delta)]
    return [*pieces, *speakable.flush()]


def said(*deltas: str) -> str:
    return "".join(piece.text for piece in pieces_of(deltas))


def one_by_one(pieces: Sequence[Piece]) -> list[tuple[str, int, int]]:
    """The same whatever the pieces were: verbatim text by its characters."""
    found = []
    for piece in pieces:
        if piece.is_verbatim:
            start = piece.original_start
            found += [(character, start + i, start + i + 1) for i, character in enumerate(piece.text)]
        else:
            found.append((piece.text, piece.original_start, piece.original_end))
    return found


def cut(text: str, places: Iterable[int]) -> list[str]:
    edges = sorted({0, len(text), *(place % (len(text) + 1) for place in places)})
    return [text[start:end] for start, end in pairwise(edges)]


def mapped(pieces: Sequence[Piece]) -> OffsetMap:
    offsets = OffsetMap()
    offsets.add(pieces)
    return offsets
