"""What one epoch has still to play, and the shape of its edges. Not thread-safe, no clock."""

from __future__ import annotations

from collections import deque

import numpy as np
from numpy.typing import NDArray

from common.errors import SequenceGap

Samples = NDArray[np.int16]


class Sound:
    """What one epoch has still to play. Offsets count from the epoch's first sample."""

    def __init__(self, epoch: int, start_samples: int) -> None:
        self.epoch = epoch
        self.start_samples = start_samples
        self.position: int | None = None  # of the next sample to play
        self.available = 0
        self.ended = False
        self.began = False
        self.dry_since_s: float | None = None
        self._chunks: deque[Samples] = deque()
        self._head = 0  # samples of the first chunk that are played
        self._boundaries: deque[int] = deque()

    @property
    def expected(self) -> int | None:
        """The offset that comes next into the ring."""
        return None if self.position is None else self.position + self.available

    def put(self, offset: int, samples: Samples) -> None:
        if self.position is None:
            self.position = offset
        expected = self.position + self.available
        if offset > expected:
            raise SequenceGap(f"Samples {expected} to {offset} of epoch {self.epoch} are missing.")
        fresh = samples[expected - offset :]
        if fresh.size:
            self._chunks.append(fresh)
            self.available += fresh.size

    def take(self, count: int) -> Samples:
        """The next `count` samples, which must be there; a copy."""
        taken = np.empty(count, np.int16)
        filled = 0
        while filled < count:
            chunk = self._chunks[0]
            part = chunk[self._head : self._head + count - filled]
            taken[filled : filled + part.size] = part
            filled += part.size
            self._head += part.size
            if self._head == chunk.size:
                self._chunks.popleft()
                self._head = 0
        assert self.position is not None
        self.position += count
        self.available -= count
        return taken

    def put_back(self, samples: Samples) -> None:
        """Undo the last `take`."""
        assert self.position is not None
        if self._head:
            self._chunks[0] = self._chunks[0][self._head :]
            self._head = 0
        self._chunks.appendleft(samples)
        self.position -= samples.size
        self.available += samples.size

    def mark(self, offset: int) -> None:
        self._boundaries.append(offset)

    def boundary(self, least: int) -> int | None:
        """How many samples lead to the last marked boundary that is in the ring and at least `least` away."""
        if self.position is None:
            return None
        while self._boundaries and self._boundaries[0] <= self.position:
            self._boundaries.popleft()
        ahead = [mark - self.position for mark in self._boundaries if mark <= self.position + self.available]
        return ahead[-1] if ahead and ahead[-1] >= least else None


def shaped(samples: Samples, fade_in: int = 0, fade_out: int = 0) -> Samples:
    """Raised cosines at the edges, as long as the sound allows."""
    shape = np.ones(samples.size, np.float32)
    for count, at in ((fade_in, slice(None)), (fade_out, slice(None, None, -1))):
        count = min(count, samples.size)
        if count:
            shape[at][:count] *= 0.5 - 0.5 * np.cos(np.pi * (np.arange(count, dtype=np.float32) / count))
    faded: Samples = np.round(samples * shape).astype(np.int16)
    return faded
