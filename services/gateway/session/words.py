"""The text of one answer on its way to speech, and back: what of it had been heard after so many samples. Pure.

original ──filter──▶ spoken text ──gate──▶ told to the talker
original ◀─map────── spoken text ◀─ledger─ samples heard
"""

from __future__ import annotations

from services.gateway.speakable import Normalisation, OffsetMap, Piece, SpeakableFilter
from services.gateway.turns.gate import FirstPacketGate
from services.gateway.turns.heard import HeardLedger, SpeakingPace
from services.gateway.turns.settings import TurnSettings


class Words:
    """`already_heard` was said by an earlier epoch of the same answer: part of its text, not of its speech."""

    def __init__(
        self,
        settings: TurnSettings,
        pace: SpeakingPace,
        is_filtered: bool = True,
        already_heard: str = "",
        *,
        normalise: Normalisation = "off",
        language: str = "",
    ) -> None:
        self._filter = SpeakableFilter(normalise, language) if is_filtered else None
        self._gate = FirstPacketGate(settings)
        self._ledger = HeardLedger(pace)
        self._map = OffsetMap()
        self._waiting: list[str] = []  # for the gate
        self._before = already_heard
        self.text = already_heard
        """All of it so far, as it was written."""

    def add(self, delta: str, now_s: float, token_count: int = 1) -> str:
        """More of what is written; returns what the talker is to be told now."""
        begin = len(self.text) - len(self._before)
        self.text += delta
        if self._filter is None:
            pieces: tuple[Piece, ...] = (Piece(delta, begin, begin + len(delta)),)
        else:
            pieces = self._filter.feed(delta)
        text = self._speak(pieces)
        if text and self._gate.add(text, now_s, token_count):
            return self._let_through()
        return ""

    def finish(self, now_s: float) -> str:
        """No more text; returns the rest."""
        if self._filter is not None:
            self._speak(self._filter.flush())
        self._gate.finish(now_s)
        return self._let_through()

    def tick(self, now_s: float) -> str:
        """Time has passed: text that waited may have waited enough."""
        return self._let_through() if self._gate.tick(now_s) else ""

    @property
    def due_s(self) -> float | None:
        """When to call `tick`."""
        return self._gate.due_s

    def _speak(self, pieces: tuple[Piece, ...]) -> str:
        text = self._map.add(pieces)
        if text:
            self._ledger.add_text(text)
            self._waiting.append(text)
        return text

    def _let_through(self) -> str:
        text = "".join(self._waiting)
        self._waiting.clear()
        return text

    def sound(self, first_sample: int, sample_count: int, read_character_count: int) -> None:
        """A packet of its speech, at 24 kHz, and how many spoken characters the talker had read when it was made."""
        self._ledger.add_audio(first_sample, sample_count, read_character_count)

    def sound_is_over(self) -> None:
        """There is no more speech."""
        self._ledger.finish()

    def heard(self, sample_count: int) -> int:
        """Characters of `text` that had been heard, whole words, when so many samples had."""
        spoken = self._ledger.heard(sample_count, 0.0).character_count
        return len(self._before) + self._map.original(spoken)
