"""The user's sound, in pieces of any length → one `VoiceWindow` for every 32 ms of it, at exact positions.

Positions count the samples that were heard, whatever was cut how; who keeps the sound counts the same. A faint noise is
laid under what the detector hears, as digital silence is a thing it was never taught. Refuses to know time: sound that
came late is judged like any other.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from services.gateway.hearing.silero import WINDOW_SAMPLES, Silero, shared_model
from services.gateway.turns.events import VoiceWindow

_NOISE_PERIOD = 64  # windows of noise before it repeats
_NO_SAMPLES: NDArray[np.int16] = np.zeros(0, np.int16)


@dataclass(frozen=True, slots=True)
class HearingSettings:
    """When a window is voice. ValueError where it cannot work."""

    threshold: float = 0.5
    release: float = 0.15  # so far below the threshold voice must fall to be over
    noise_dbfs: float = -70.0

    def __post_init__(self) -> None:
        if not (0 < self.threshold < 1 and 0 <= self.release < self.threshold):
            raise ValueError("the threshold must be between 0 and 1, the release below it")
        if not -120 <= self.noise_dbfs <= -40:
            raise ValueError("the noise must be between -120 and -40 dBFS")


class Listener:
    """One conversation's ear. NotReady when the detector's weights are not installed.

    `settings` may be replaced at any time; the noise stays as it was.
    `voice` judges a window of 512 samples in [-1, 1]; by default silero VAD, whose weights all listeners share.
    """

    def __init__(
        self,
        settings: HearingSettings | None = None,
        voice: Callable[[NDArray[np.float32]], float] | None = None,
    ) -> None:
        self.settings = settings or HearingSettings()
        self._voice = voice or Silero(shared_model()).voice
        self._pending = _NO_SAMPLES
        self._windows = 0
        self._voiced = False
        self._noise = _noise(self.settings.noise_dbfs)
        self.probability = 0.0  # of the newest window

    def hear(self, samples: NDArray[np.int16], echo: bool = False) -> list[VoiceWindow]:
        """More sound, mono 16 kHz; `echo`: of windows that end in it the level says that they are our own voice."""
        if self._pending.size:
            samples = np.concatenate((self._pending, samples))
        count = samples.size // WINDOW_SAMPLES
        judged = [
            self._judge(samples[index * WINDOW_SAMPLES : (index + 1) * WINDOW_SAMPLES], echo) for index in range(count)
        ]
        self._pending = samples[count * WINDOW_SAMPLES :].copy()  # the caller's array is the caller's
        return judged

    def _judge(self, window: NDArray[np.int16], echo: bool) -> VoiceWindow:
        noise = self._noise[self._windows % _NOISE_PERIOD]
        self._windows += 1
        self.probability = self._voice(window * np.float32(1 / 32768) + noise)
        threshold = self.settings.threshold - (self.settings.release if self._voiced else 0.0)
        self._voiced = self.probability >= threshold
        return VoiceWindow(self._windows * WINDOW_SAMPLES, WINDOW_SAMPLES, self._voiced, echo)


@functools.cache
def _noise(dbfs: float) -> NDArray[np.float32]:
    """One for all conversations, so that the same sound gives the same windows."""
    spread = np.random.default_rng(0).standard_normal((_NOISE_PERIOD, WINDOW_SAMPLES), np.float32)
    noise = spread * np.float32(10 ** (dbfs / 20))
    noise.flags.writeable = False
    return noise
