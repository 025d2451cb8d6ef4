"""The text of one utterance on its way to the voice, and the way back from what was spoken to what was written."""

from __future__ import annotations

from services.gateway.speakable.filter import MarkupFilter
from services.gateway.speakable.pieces import OffsetMap, Piece
from services.gateway.speakable.spoken import Normalisation, Reader


class SpeakableFilter:
    """What may be said of a text: no markup, and numbers as they are written (`off`) or said (`auto`, `on`).
    `language`: of a text that begins with a number."""

    def __init__(self, normalise: Normalisation = "off", language: str = "") -> None:
        self._markup = MarkupFilter()
        self._reader = None if normalise == "off" else Reader(normalise == "on", language)

    def feed(self, delta: str) -> tuple[Piece, ...]:
        """More text; returns what of it can be spoken, in order."""
        pieces = self._markup.feed(delta)
        return pieces if self._reader is None else self._reader.feed(pieces)

    def flush(self) -> tuple[Piece, ...]:
        """There is no more text."""
        pieces = self._markup.flush()
        return pieces if self._reader is None else (*self._reader.feed(pieces), *self._reader.flush())


class SpeakableText:
    """A filter and its offset map, for who speaks strings."""

    def __init__(self, normalise: Normalisation = "off", language: str = "") -> None:
        self._filter = SpeakableFilter(normalise, language)
        self._offsets = OffsetMap()

    def feed(self, delta: str) -> str:
        """More text; returns what of it is spoken."""
        return self._offsets.add(self._filter.feed(delta))

    def flush(self) -> str:
        """There is no more, or what comes is something else; returns what was held back."""
        return self._offsets.add(self._filter.flush())

    def original(self, spoken: int) -> int:
        """How far in what was written one is who has read so many characters of what is spoken."""
        return self._offsets.original(spoken)
