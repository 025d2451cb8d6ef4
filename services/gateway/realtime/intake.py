"""Sound that a client sends in events, as fast as it likes → 16 kHz samples no faster than a microphone gives them.

The turn machine thinks in real time, so a file pushed at once is passed on at its own pace; a hiccup of the network is
caught up with at once. Pure: times are arguments, seconds of one monotonic clock.
"""

from __future__ import annotations

from collections import deque

import numpy as np
import soxr

from services.gateway.session.ports import BLOCK_S, HEARD_RATE_HZ, Samples

RATE_HZ = 24000
AHEAD_S = 1.0  # of sound that may be passed on at once after a pause as long
MAX_WAITING_S = 30.0


class Intake:
    """`push` what came, `take` what is due at `now_s`; `due_s` is when there will be more."""

    def __init__(self, now_s: float) -> None:
        self._resampler = soxr.ResampleStream(RATE_HZ, HEARD_RATE_HZ, 1, dtype="int16", quality="LQ")
        self._waiting: deque[Samples] = deque()
        self._count = 0
        self._paid_s = now_s - AHEAD_S  # the time up to which sound has been passed on

    @property
    def waiting_s(self) -> float:
        """Sound that came and is not due yet."""
        return self._count / RATE_HZ

    def push(self, pcm: bytes) -> None:
        """PCM16 little endian, 24 kHz, mono."""
        samples = np.frombuffer(pcm, dtype="<i2").astype(np.int16)
        if samples.size:
            self._waiting.append(samples)
            self._count += samples.size

    def clear(self) -> None:
        """Forget what is not due yet."""
        self._waiting.clear()
        self._count = 0

    def take(self, now_s: float, *, all_of_it: bool = False) -> Samples:
        """What is due, at 16 kHz."""
        self._paid_s = max(self._paid_s, now_s - AHEAD_S)
        allowed = self._count if all_of_it else max(0, round((now_s - self._paid_s) * RATE_HZ))
        taken: list[Samples] = []
        while self._waiting and allowed > 0:
            piece = self._waiting.popleft()
            if piece.size > allowed:
                self._waiting.appendleft(piece[allowed:])
                piece = piece[:allowed]
            taken.append(piece)
            allowed -= piece.size
            self._count -= piece.size
            self._paid_s += piece.size / RATE_HZ
        if not taken:
            return np.zeros(0, np.int16)
        resampled: Samples = self._resampler.resample_chunk(np.concatenate(taken))
        return resampled

    def due_s(self, now_s: float) -> float | None:
        """When `take` gives more: None while nothing waits."""
        return max(now_s, self._paid_s + BLOCK_S) if self._count else None
