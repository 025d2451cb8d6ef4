"""What an engine tells about its work while it works, in plain Python.

Engines take an `Observer` and know nothing of who listens; `common.telemetry` implements it. Every method is cheap,
never blocks, never raises and may be called from the engine's own thread.
"""

from __future__ import annotations

from typing import Protocol


class Observer(Protocol):
    """One stage's measures. Numbers only: no ids, no text, nothing of which there is a new value per utterance."""

    def step(self, duration_s: float, batch_size: int) -> None:
        """One step ran for `batch_size` active slots."""

    def slots(self, in_use: int, total: int) -> None:
        """Slots leased and slots there are, told on every change."""

    def waited(self, age_s: float) -> None:
        """A request was taken from a queue after this long."""

    def starved(self, count: int = 1) -> None:
        """Sequences sat out a step because their text had not come yet."""

    def prefix(self, hit: bool) -> None:
        """An utterance came whose prompt begins like one that is kept, or not."""

    def lead(self, lead_s: float) -> None:
        """How far ahead of its playout a sequence is: audio produced minus time gone since its first frame."""

    def underrun(self, count: int = 1) -> None:
        """Playout had nothing to play in the middle of an utterance."""

    def cancelled(self, duration_s: float) -> None:
        """From a cancel accepted to its slot free."""

    def stale(self, count: int = 1) -> None:
        """Messages, frames or samples of an older epoch were dropped."""

    def repeated(self, count: int = 1) -> None:
        """Messages or frames that had been there before were dropped."""

    def ended(self, reason: str, *, time_to_first_s: float | None, compute_s: float, audio_s: float) -> None:
        """An utterance or answer ended; `reason` is a name of `FinishReason`, `audio_s` what it sounds for (0: no
        audio)."""


class _Nobody:
    def step(self, duration_s: float, batch_size: int) -> None:
        pass

    def slots(self, in_use: int, total: int) -> None:
        pass

    def waited(self, age_s: float) -> None:
        pass

    def starved(self, count: int = 1) -> None:
        pass

    def prefix(self, hit: bool) -> None:
        pass

    def lead(self, lead_s: float) -> None:
        pass

    def underrun(self, count: int = 1) -> None:
        pass

    def cancelled(self, duration_s: float) -> None:
        pass

    def stale(self, count: int = 1) -> None:
        pass

    def repeated(self, count: int = 1) -> None:
        pass

    def ended(self, reason: str, *, time_to_first_s: float | None, compute_s: float, audio_s: float) -> None:
        pass


NOBODY: Observer = _Nobody()
"""Nobody listens: the default of every engine."""
