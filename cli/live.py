"""The line under one's eyes while speech comes: first packet, real-time factor, lead. On a terminal only."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, TextIO

from cli.listening import Listener

_BACK_AND_CLEAR = "\r\x1b[K"


class LiveListener(Listener):
    """A `Listener` that redraws one line of `terminal` with every packet, and takes it away at the end.

    The lead is how much has come beyond what a listener who began with the first packet has heard by now; below 0 that
    listener would be waiting.
    """

    def __init__(
        self,
        sink: Callable[[bytes], object],
        sample_rate_hz: int,
        sample_bytes: int,
        terminal: TextIO,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(sink, sample_rate_hz, sample_bytes)
        self._terminal, self._clock = terminal, clock

    def receive(self, response: Any) -> bool:
        """As `Listener.receive`."""
        is_over = super().receive(response)
        if is_over:
            self._terminal.write(_BACK_AND_CLEAR)
        elif self.audio_s:
            self._terminal.write(_BACK_AND_CLEAR + self.line())
        self._terminal.flush()
        return is_over

    def line(self) -> str:
        """What is known now."""
        now_s = self._clock()
        first_ms = 1000 * (self._first_s - self._begin_s)
        rtf = (now_s - self._begin_s) / self.audio_s
        lead_s = self.audio_s - (now_s - self._first_s)
        return f"{self.audio_s:.1f} s spoken · first packet {first_ms:.0f} ms · RTF {rtf:.2f} · lead {lead_s:+.1f} s"
