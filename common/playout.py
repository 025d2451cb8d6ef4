"""How far ahead of its listener an utterance is. Pure: times are arguments, seconds of one monotonic clock.

The listener begins with the first packet and plays on a clock that never waits. When nothing is left to play there is
silence, and what comes next is heard at once:

    sent   ■■■■ ■■■■■■■■        ■■■■■■
           begin       dry ▲    ▲ begins again: silence between, nothing is made up for
"""

from __future__ import annotations


class Playout:
    """The clock of one utterance; a frame sounds for `frame_s`."""

    def __init__(self, frame_s: float) -> None:
        self._frame_s = frame_s
        self._dry_s: float | None = None
        self.pause_count = 0
        """How often the listener had nothing to play in the middle of the utterance."""

    @property
    def begun(self) -> bool:
        """Whether anything has been sent."""
        return self._dry_s is not None

    def sent(self, frame_count: int, now_s: float) -> None:
        """So many frames went out."""
        if self._dry_s is None:
            self._dry_s = now_s
        elif now_s > self._dry_s:
            self.pause_count += 1
            self._dry_s = now_s
        self._dry_s += frame_count * self._frame_s

    def lead_s(self, now_s: float, unsent_frames: int = 0) -> float:
        """Seconds of sound that are sent, or made and not sent, and not yet heard; never negative."""
        sent_s = 0.0 if self._dry_s is None else max(0.0, self._dry_s - now_s)
        return sent_s + unsent_frames * self._frame_s
