"""Whether what the microphone hears holds what we play: a second of both, correlated. Pure.

A room answers after our sound, never before it. So the strongest correlation at positive lags is held against the
strongest at negative ones, where there can only be chance. Synthetic rooms at 0 to -30 dB: 6 and more; noise and other
voices: 3.3 at most; both at once: 4 and more down to an echo 10 dB below the voice.

A microphone that is quiet while we play proves that there is no echo, and for some seconds outweighs any correlation:
one phrase alone, after a browser has made silence of all else, correlates with anything now and then.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Samples = NDArray[np.int16]

DECIMATION = 4
RATE_HZ = 16000 // DECIMATION
WINDOW = RATE_HZ
STEP_FRAMES = 50  # 0.5 s
FFT = 8192
LAG = round(0.65 * RATE_HZ)
REVERBERATION = 40  # 10 ms over which the room's answer is summed
SMOOTHING = 0.7  # of the spectrum, from step to step: a room stays as it is, chance does not
LOW_HZ, HIGH_HZ = 150, 1900
ACTIVE_LEVEL = 100.0  # -50 dBFS, rms
ACTIVE_SHARE = 0.3  # of the window, or there is nothing to find

FOUND = 4.0
ABSENT = 3.0
ABSENT_STEPS = 12  # 6 s without, before a found echo is believed to be gone
QUIET_LEVEL = 33.0  # -60 dBFS, rms: what is less is no echo that anybody would take for a voice
QUIET_SHARE = 0.25  # of the time in which we play
PROOF_STEPS = 6  # 3 s for which a quiet microphone outweighs correlation


class EchoDetector:
    """Frames of 10 ms at 16 kHz in, a verdict out: True, False, or None before there was anything to judge."""

    def __init__(self) -> None:
        self.verdict: bool | None = None
        self.score = 0.0
        self._far = np.zeros(WINDOW, np.float32)
        self._near = np.zeros(WINDOW, np.float32)
        self._fresh: list[tuple[Samples, Samples]] = []
        self._active = np.zeros(WINDOW * DECIMATION // 160, bool)
        self._heard = np.zeros_like(self._active)
        self._proven = 0  # steps for which a quiet microphone still counts
        self._filled = 0
        self._spectrum = np.zeros(FFT // 2 + 1, np.complex64)
        self._without = 0
        self._found = False
        bins = np.fft.rfftfreq(FFT, 1 / RATE_HZ)
        self._outside = (bins < LOW_HZ) | (bins > HIGH_HZ)

    def push(self, far: Samples, near: Samples) -> None:
        """One frame of each."""
        self._fresh.append((far, near))
        if len(self._fresh) < STEP_FRAMES:
            return
        fars, nears = (np.stack(frames).astype(np.float32) for frames in zip(*self._fresh, strict=True))
        self._fresh.clear()
        active = np.sqrt(np.mean(np.square(fars), axis=1)) > ACTIVE_LEVEL
        heard = np.sqrt(np.mean(np.square(nears), axis=1)) > QUIET_LEVEL
        self._active = np.concatenate([self._active, active])[-self._active.size :]
        self._heard = np.concatenate([self._heard, heard])[-self._heard.size :]
        self._far, self._near = _followed(self._far, fars), _followed(self._near, nears)
        self._filled = min(self._filled + STEP_FRAMES, self._active.size)
        if self._filled == self._active.size and self._active.mean() >= ACTIVE_SHARE:
            self._judge()

    def _judge(self) -> None:
        cross = np.fft.rfft(self._near, FFT) * np.conj(np.fft.rfft(self._far, FFT))
        cross /= np.abs(cross) + 1e-3
        cross[self._outside] = 0
        self._spectrum = SMOOTHING * self._spectrum + cross.astype(np.complex64)
        answer = np.square(np.fft.irfft(self._spectrum, FFT))
        power = np.convolve(np.concatenate([answer[-LAG:], answer[:LAG]]), np.ones(REVERBERATION), "same")
        chance = power[: LAG - 2 * REVERBERATION].max()
        self.score = float(power[LAG:].max() / max(chance, 1e-20))
        early = self._active[:-STEP_FRAMES].mean()  # early enough that the longest echo of it has come
        self._proven = max(self._proven - 1, 0)
        if early >= ACTIVE_SHARE and self._heard.mean() < QUIET_SHARE * self._active.mean():
            self._proven = PROOF_STEPS
        if self._proven:
            self.verdict = self._found = False
            return
        before, self._found = self._found, self.score >= FOUND
        if self._found:
            self._without = 0
            if self.verdict or before:  # a single step may be chance
                self.verdict = True
        elif self.verdict is None:
            if early >= ACTIVE_SHARE:
                self.verdict = False
        elif self.score < ABSENT:
            self._without += 1
            if self._without >= ABSENT_STEPS:
                self.verdict = False


def _followed(window: NDArray[np.float32], frames: NDArray[np.float32]) -> NDArray[np.float32]:
    """The window moved on by the frames, at the lower rate."""
    lower = frames.reshape(-1, DECIMATION).mean(axis=1)
    return np.concatenate([window, lower])[-window.size :]
