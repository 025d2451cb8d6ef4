"""When sound may be played, when it must pause, when it goes on, and how much may be made ahead. Pure.

A voice that runs dry stops with a fade and says nothing until enough lies ready: one natural pause, never a stutter of
short ones. Nothing is repeated, stretched or invented to fill it.

    buffered  ▁▃▆█▆▄▂▁ ▁ ▂▃▄▅▆
              └ prebuffer └ underrun  └ restart: goes on here
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from services.gateway.turns.settings import TurnSettings

_SILENT_BELOW = 130  # of int16: −48 dBFS


class Lead:
    """One epoch on its way out: asked once whether it may begin, then for each block whether the next may be sound."""

    def __init__(self, settings: TurnSettings) -> None:
        self._settings = settings
        self._paused_s: float | None = None
        self.underruns = 0
        self.paused_s = 0.0  # all of it

    def may_begin(self, buffered_s: float, done: bool, rtf: float | None = None) -> bool:
        """Whether enough lies ready for the first sample. `rtf`: of the codec, measured; None: unknown."""
        settings = self._settings
        fast = rtf is None or rtf <= settings.prebuffer_rtf
        return done or buffered_s >= (settings.prebuffer_s if fast else settings.slow_prebuffer_s)

    def plays(self, buffered_s: float, done: bool, now_s: float) -> bool:
        """Whether sound goes out now; False after True: fade out, then silence.

        `buffered_s`: what lies ready, this block included. `done`: all of it has been made, so it plays to its end.
        """
        if self._paused_s is None:
            if not done and buffered_s < self._settings.underrun_s:
                self.underruns += 1
                self._paused_s = now_s
        elif done or buffered_s >= self._settings.restart_s:
            self.paused_s += now_s - self._paused_s
            self._paused_s = None
        return self._paused_s is None

    def filler_due(self, now_s: float) -> bool:
        """Whether a pause has become so long that a filler may cover it (if any is configured)."""
        after_s = self._settings.filler_after_s
        return after_s is not None and self._paused_s is not None and now_s - self._paused_s >= after_s


class Credit:
    """How many frames the talker may make: never more than `credit_s` ahead of what was sent, so that a cancel wastes
    little and what was heard is known closely."""

    def __init__(self, settings: TurnSettings, frame_s: float = 0.08) -> None:
        self._ahead_s = settings.credit_s
        self._frame_s = frame_s
        self.granted_frames = 0

    def grant(self, sent_s: float) -> int:
        """How many frames to allow on top of those allowed before, now that so much was sent."""
        frames = math.ceil((sent_s + self._ahead_s) / self._frame_s - 1e-9) - self.granted_frames
        if frames <= 0:
            return 0
        self.granted_frames += frames
        return frames


def leading_silence(samples: Sequence[int], rate_hz: int, settings: TurnSettings) -> int:
    """How many samples of the first packet to skip: silence before the first sound, above what may stay of it."""
    keep = round(settings.leading_silence_s * rate_hz)
    first = next((index for index, sample in enumerate(samples) if abs(sample) > _SILENT_BELOW), len(samples))
    return max(0, first - keep)
