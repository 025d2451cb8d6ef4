"""One utterance as the engine's thread sees it: frames waiting, how far it is, and its way out. No tensors.

Used by that thread alone, except `frames_taken`, a count that others may read.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from hashlib import sha256
from itertools import islice

import numpy as np

from common.errors import Broken, MeshError
from common.playout import Playout
from common.stream import FinishReason
from services.codec.sound import Packet, Samples, SoundFormat, SoundStream
from services.codec.types import AudioBatch, Codes, Ended, Event

_log = logging.getLogger(__name__)


class Session:
    """`slot` is None while it waits for its predecessor's. `fresh`: the slot holds nothing of it yet."""

    def __init__(
        self,
        form: SoundFormat,
        codec_rate_hz: int,
        samples_per_frame: int,
        prime_codes: Codes,
        post: Callable[[Event], None],
        undelivered: Callable[[], int],
        wake: Callable[[], None],
        lane: Executor | None,
    ) -> None:
        self.slot: int | None = None
        self.fresh = True
        self.follower: Session | None = None
        self.flushed = False
        self.reason: FinishReason | None = None
        self.frames_taken = 0
        self.last_served_step = -1
        self.playout = Playout(samples_per_frame / codec_rate_hz)
        self.compute_s = 0.0
        self._sent_outside = 0
        self._done_outside = 0
        self.heard = False
        self.fault: MeshError | None = None
        self._post = post
        self._undelivered = undelivered
        self._wake = wake
        self._lane = lane
        self._sound = SoundStream(form, codec_rate_hz)
        self._frame_samples = samples_per_frame * form.sample_rate_hz / codec_rate_hz
        self._priming = deque(prime_codes)
        self._waiting: deque[Sequence[int]] = deque()
        self._sample_count = 0
        self.voice = sha256(np.array(prime_codes, np.int32).tobytes()).digest() if prime_codes else None

    @property
    def priming(self) -> bool:
        return bool(self._priming)

    @property
    def unheard(self) -> bool:
        return not self._priming and not self.heard

    @property
    def pending_frames(self) -> int:
        """Frames the next step may take: of the reference first, never of both at once."""
        return len(self._priming) or len(self._waiting)

    @property
    def spoken(self) -> bool:
        """Everything that will ever come has been decoded."""
        return self.flushed and not self._priming and not self._waiting

    @property
    def undelivered(self) -> int:
        """Pieces of sound that the reader has not taken yet."""
        return self._undelivered() + self._sent_outside - self._done_outside

    def feed(self, frames: Sequence[Sequence[int]]) -> None:
        self._waiting.extend(frames)

    def primed(self) -> None:
        """The slot already stands behind the reference."""
        self._priming.clear()
        self.fresh = False

    def take(self, count: int) -> Codes:
        """The next frames, of the reference or of the utterance."""
        queue = self._priming or self._waiting
        if queue is self._waiting:
            self.frames_taken += count
        taken = tuple(tuple(frame) for frame in islice(queue, count))
        for _ in range(count):
            queue.popleft()
        return taken

    def sound(self, samples: Samples) -> None:
        """Send decoded samples on their way; costly formats leave this thread."""
        self.heard = True
        self._outside(lambda: self._send(self._sound.push(samples)))

    def end(self, reason: FinishReason, error: MeshError | None = None) -> None:
        """The last event; a completed utterance first drains its filters."""
        self.reason = reason
        self._priming.clear()
        self._waiting.clear()
        self._outside(lambda: self._finish(reason, error))

    def _finish(self, reason: FinishReason, error: MeshError | None) -> None:
        if reason is FinishReason.COMPLETED:
            self._send(self._sound.flush())
        self._post(self._ended(reason, error))

    def _ended(self, reason: FinishReason, error: MeshError | None) -> Ended:
        return Ended(reason, error, self.frames_taken, self._sample_count, None, self.compute_s)

    def _outside(self, work: Callable[[], None]) -> None:
        if self._lane is None:
            work()
            return
        self._sent_outside += 1
        self._lane.submit(self._run_outside, work)

    def _run_outside(self, work: Callable[[], None]) -> None:
        try:
            work()
        except Exception as error:  # the top of a thread; the worker ends the utterance with it
            _log.exception("making sound failed")
            self.fault = Broken(f"Making sound failed: {type(error).__name__}.")
            if self.reason is not None:
                self._post(self._ended(FinishReason.FAILED, self.fault))
        self._done_outside += 1
        self._wake()

    def _send(self, packets: list[Packet]) -> None:
        now = time.time()
        for packet in packets:
            start, end = self._sample_count, self._sample_count + packet.sample_count
            first, last = (int(at / self._frame_samples + 1e-9) for at in (start, end))
            self._sample_count = end
            self._post(AudioBatch(start, packet.sample_count, packet.payload, first, last - first, now))
