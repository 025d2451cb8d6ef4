"""Samples from one rate to another as they come, with 1.5 ms of delay at most.

A polyphase windowed sinc. soxr's streams hold back 20 to 115 ms in blocks of 20 ms (measured, version 1.0), which is
nothing for a file and too much for a conversation. Pure numpy, state from one call to the next, any cut gives the same
samples.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

_HALF = 12  # zero crossings on each side, of the lower rate
_ROLL_OFF = 0.92  # of the lower Nyquist frequency
_BETA = 8.0  # Kaiser: about 80 dB

Floats = NDArray[np.float32]


class Resampler:
    """One stream of one channel. After `flush` round(samples · to / from) samples have come out, give or take one."""

    def __init__(self, from_hz: int, to_hz: int) -> None:
        common = math.gcd(from_hz, to_hz)
        self._up, self._down = to_hz // common, from_hz // common
        half = _HALF * max(self._up, self._down)
        times = np.arange(-half, half + 1) / max(self._up, self._down) * _ROLL_OFF
        taps = np.sinc(times) * np.kaiser(times.size, _BETA)
        taps *= self._up / taps.sum()
        width = -(-taps.size // self._up)
        padded = np.zeros(width * self._up)
        padded[: taps.size] = taps
        # row p: what output phase p takes of the last `width` inputs, oldest first
        self._phases = padded.reshape(width, self._up).T[:, ::-1].astype(np.float32)
        self._late = half  # delay of the filter, in steps of from · up
        self._before = np.zeros(width - 1, np.float32)
        self._taken = 0
        self._next = -(-half // self._down)  # the first output that is not before the first input

    def push(self, samples: Floats) -> Floats:
        """What can be said now, [N] float32."""
        if not samples.size:
            return samples
        window = np.concatenate([self._before, samples])
        self._taken += samples.size
        end = -(-self._taken * self._up // self._down)
        steps = np.arange(self._next, max(end, self._next)) * self._down
        self._next = max(end, self._next)
        first = self._taken - samples.size  # position of window[width - 1]
        rows = np.lib.stride_tricks.sliding_window_view(window, self._phases.shape[1])
        chosen = rows[steps // self._up - first] if steps.size else rows[:0]
        self._before = window[window.size - self._before.size :]
        return np.asarray(np.einsum("nk,nk->n", chosen, self._phases[steps % self._up]), np.float32)

    def flush(self) -> Floats:
        """What the filter still holds."""
        return self.push(np.zeros(-(-self._late // self._up), np.float32))
