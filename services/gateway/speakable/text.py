"""The text of one utterance on its way to the voice, and the way back from what was spoken to what was written."""

from __future__ import annotations

from services.gateway.speakable.filter import MarkupFilter
from services.gateway.speakable.pieces import OffsetMap


class SpeakableText:
    """A filter and its offset map, for who speaks strings."""

    def __init__(self) -> None:
        self._filter = MarkupFilter()
        self._offsets = OffsetMap()

    def feed(self, delta: str) -> str:
        """More text; returns what of it is spoken."""
        return self._offsets.add(self._filter.feed(delta))

    def flush(self) -> str:
        """There is no more; returns what was held back."""
        return self._offsets.add(self._filter.flush())

    def original(self, spoken: int) -> int:
        """How far in what was written one is who has read so many characters of what is spoken."""
        return self._offsets.original(spoken)
