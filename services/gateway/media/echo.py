"""Our own voice taken out of what the person's microphone heard: WebRTC's AEC3, on the server.

    played  ──▶ far  ▒▒▒▒▒▒▒▒ ──▶ ┌──────┐   a frame of far for each frame of near, so that what jitter does to
    microphone ──▶ near ────────▶ │ AEC3 │   arrivals moves nothing; far is as young as it can be, the echo in near
                                  └──┬───┘   is then always older than it
                                     └──▶ cleaned; near itself once the detector finds no echo in it (headphones),
                                          for there AEC3 would take a voice over ours for its echo (-40 dB, seconds)

A browser cancels echo too; on loudspeakers what is left of it makes an answer interrupt itself. livekit's package
carries AEC3 and needs no server for it. The only file that knows it; without it there is no cancellation.
"""

from __future__ import annotations

import functools
import logging
from collections import deque
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import numpy as np
import soxr
from numpy.typing import NDArray

from services.gateway.media.echo_detector import EchoDetector
from services.gateway.session.ports import BLOCK_SAMPLES, HEARD_RATE_HZ, PLAYED_RATE_HZ

_LOG = logging.getLogger(__name__)
Samples = NDArray[np.int16]

FRAME = HEARD_RATE_HZ // 100  # AEC3 takes 10 ms
MAX_FAR_FRAMES = 400  # 4 s that the person's microphone may be away
REALIGN_FRAMES = 500  # far that was never needed for so long is late by the drift of two clocks: drop it
REDUCTION_FRAMES = 100  # the measure of what is taken out is of a second


class EchoCanceller:
    """One person's. `played` is for the pacer's thread, everything else for the loop."""

    def __init__(self, processor: Any, frame_of: Callable[..., Any]) -> None:
        self._processor = processor
        self._frame_of = frame_of
        self._resampler = soxr.ResampleStream(PLAYED_RATE_HZ, HEARD_RATE_HZ, 1, dtype="int16", quality="LQ")
        self._played: deque[tuple[Samples, int]] = deque(maxlen=MAX_FAR_FRAMES // 2)
        self._far: deque[Samples] = deque(maxlen=MAX_FAR_FRAMES)
        self._far_rest: Samples = np.zeros(0, np.int16)
        self._near_rest: Samples = np.zeros(0, np.int16)
        self._spare = MAX_FAR_FRAMES  # the least that was left in `_far` since the last look
        self._looked = 0
        self._invented = 0  # frames of silence since the last block: those that were missed are among them
        self._detector = EchoDetector()
        self._measured = 0
        self._before = self._after = 0.0  # energies of near in this second
        self.reduction_db: float | None = None  # ERLE of the last second of our voice, when nobody else spoke

    @classmethod
    def if_installed(cls) -> EchoCanceller | None:
        """None where livekit's package is not."""
        found = library()
        if found is None:
            return None
        module, frame = found
        return cls(module(echo_cancellation=True), frame)

    @property
    def bypassed(self) -> bool:
        """Nothing is taken out, for there is nothing."""
        return self._detector.verdict is False

    @property
    def found(self) -> bool:
        """There is an echo."""
        return self._detector.verdict is True

    def played(self, samples: Samples, missed: int = 0) -> None:
        """20 ms at 24 kHz that go out now, after so many slots in which nothing did."""
        self._played.append((samples, missed))

    def cleaned(self, near: Samples) -> Samples:
        """What the microphone heard (16 kHz, any length), in whole frames of 10 ms; the rest comes with the next."""
        self._take_played()
        if self._near_rest.size:
            near = np.concatenate([self._near_rest, near])
        whole = near.size // FRAME * FRAME
        self._near_rest = near[whole:]
        frames = [self._frame(near[at : at + FRAME]) for at in range(0, whole, FRAME)]
        return np.concatenate(frames) if frames else near[:0]

    def _frame(self, near: Samples) -> Samples:
        far = self._next_far()
        self._detector.push(far, near)
        self._processor.process_reverse_stream(self._frame_of(bytearray(far.tobytes()), HEARD_RATE_HZ, 1, FRAME))
        frame = self._frame_of(bytearray(near.tobytes()), HEARD_RATE_HZ, 1, FRAME)
        self._processor.process_stream(frame)
        clean = np.frombuffer(frame.data, np.int16)
        if far.any():
            self._measure(near, clean)
        return near if self.bypassed else clean

    def _measure(self, near: Samples, clean: Samples) -> None:
        self._before += _energy(near)
        self._after += _energy(clean)
        self._measured += 1
        if self._measured == REDUCTION_FRAMES:
            self.reduction_db = 10 * float(np.log10((self._before + 1) / (self._after + 1)))
            self._before = self._after = 0.0
            self._measured = 0

    def _next_far(self) -> Samples:
        if self._far:
            far = self._far.popleft()
        else:
            far = _SILENCE
            self._invented += 1
        self._spare = min(self._spare, len(self._far))
        self._looked += 1
        if self._looked >= REALIGN_FRAMES:
            for _ in range(self._spare):
                self._far.popleft()
            self._looked, self._spare = 0, MAX_FAR_FRAMES
        return far

    def _take_played(self) -> None:
        """Blocks of 20 ms at 24 kHz → frames of 10 ms at 16 kHz."""
        blocks: list[Samples] = []
        while self._played:
            samples, missed = self._played.popleft()
            missed -= self._invented // 2
            self._invented = 0
            blocks += [np.zeros(BLOCK_SAMPLES, np.int16)] * min(max(missed, 0), MAX_FAR_FRAMES // 2)
            blocks.append(samples)
        if not blocks:
            return
        far = np.concatenate([self._far_rest, self._resampler.resample_chunk(np.concatenate(blocks))])
        whole = far.size // FRAME * FRAME
        self._far_rest = far[whole:]
        self._far.extend(far[at : at + FRAME] for at in range(0, whole, FRAME))


_SILENCE: Samples = np.zeros(FRAME, np.int16)


def _energy(samples: Samples) -> float:
    return float(np.sum(np.square(samples, dtype=np.float64)))


@functools.cache
def library() -> tuple[Any, Any] | None:
    """AEC3 and the class of its frames; looked for once, 0.3 s."""
    if find_spec("livekit") is None:
        _LOG.warning("there is no echo cancellation: the package livekit is not installed")
        return None
    from livekit.rtc import AudioFrame
    from livekit.rtc.apm import AudioProcessingModule

    return AudioProcessingModule, AudioFrame
