"""The last of what a microphone gave, by position: samples at 16 kHz since the conversation began. Pure."""

from __future__ import annotations

from collections import deque

import numpy as np

from services.gateway.session.ports import HEARD_RATE_HZ, Samples


class Recording:
    """Keeps `keep_s` seconds and a little more; what is older is gone."""

    def __init__(self, keep_s: float) -> None:
        self._keep = round(keep_s * HEARD_RATE_HZ)
        self._chunks: deque[Samples] = deque()
        self._begin = 0  # position of the first sample kept
        self.end_sample = 0
        self._arrived_s = 0.0

    def add(self, samples: Samples, arrived_s: float) -> None:
        """More sound, the end of which came at `arrived_s`."""
        if not samples.size:
            return
        self._chunks.append(samples)
        self.end_sample += samples.size
        self._arrived_s = arrived_s
        while self._chunks and self.end_sample - self._begin - self._chunks[0].size >= self._keep:
            self._begin += self._chunks.popleft().size

    def clear(self) -> None:
        """Forget all of it; positions go on."""
        self._chunks.clear()
        self._begin = self.end_sample

    def cut(self, from_sample: int, end_sample: int | None = None) -> bytes:
        """The sound of [from, end), 16 bit little endian; less where it is not kept or not there yet."""
        end_sample = self.end_sample if end_sample is None else end_sample
        pieces: list[Samples] = []
        position = self._begin
        for chunk in self._chunks:
            if position < end_sample and position + chunk.size > from_sample:
                pieces.append(chunk[max(0, from_sample - position) : end_sample - position])
            position += chunk.size
        return np.concatenate(pieces).astype("<i2").tobytes() if pieces else b""

    def time_of(self, sample: int) -> float:
        """When the sound up to there had come, by the clock of `add`."""
        return self._arrived_s - max(0, self.end_sample - sample) / HEARD_RATE_HZ
