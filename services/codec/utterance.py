"""The caller's end of one utterance: checks what is fed, and hands events to one reader. Lives on the event loop.

Refuses to know the device; everything it wants done it leaves with the worker.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, replace

from common.errors import InvalidRequest, OutOfOrder, Overloaded
from common.stream import FinishReason
from services.codec.session import Session
from services.codec.types import AudioBatch, Ended, Event, Started
from services.codec.worker import Worker


@dataclass(frozen=True, slots=True)
class CodeRules:
    """What a frame must be."""

    codebook_count: int
    codebook_size: int

    def check(self, frames: Sequence[Sequence[int]]) -> None:
        """InvalidRequest for a wrong number of codes or a code out of range."""
        for index, frame in enumerate(frames):
            if len(frame) != self.codebook_count:
                raise InvalidRequest(f"Frame {index} has {len(frame)} codes, not {self.codebook_count}.")
            for code in frame:
                if not 0 <= code < self.codebook_size:
                    raise InvalidRequest(f"Frame {index} has code {code}, outside 0 … {self.codebook_size - 1}.")


class DecodeUtterance:
    """`slot` is the lease, held until `Ended` is delivered, then passed to `follower` or given back."""

    def __init__(
        self, worker: Worker, rules: CodeRules, *, max_queued: int, max_undelivered: int, ended: Callable[[], None]
    ) -> None:
        self.slot: int | None = None
        self.follower: DecodeUtterance | None = None
        self.reason: FinishReason | None = None
        self.session: Session
        self._worker = worker
        self._rules = rules
        self._max_queued = max_queued
        self._max_undelivered = max_undelivered
        self._on_ended = ended
        self._events: deque[Event] = deque([Started()])
        self._arrived = asyncio.Event()
        self._arrived.set()
        self._fed = 0
        self._flushed = False
        self._cancelled = False
        self._read_out = False
        self._first_fed: float | None = None
        self._first_heard_s: float | None = None
        self._frames_read = 0
        self._samples_read = 0

    @property
    def undelivered(self) -> int:
        return len(self._events)

    @property
    def cancelled(self) -> bool:
        return self._cancelled

    def feed(self, frames: Sequence[Sequence[int]]) -> None:
        if self._cancelled or self.reason is not None:
            return
        if self._flushed:
            raise OutOfOrder("Frames after flush.")
        self._rules.check(frames)
        if self._fed - self.session.frames_taken + len(frames) > self._max_queued:
            raise Overloaded(f"More than {self._max_queued} frames wait to be decoded.", reason="SLOW_READER")
        if not frames:
            return
        self._first_fed = self._first_fed or time.perf_counter()
        self._fed += len(frames)
        self._worker.feed(self.session, frames)

    def flush(self) -> None:
        if self._cancelled or self.reason is not None:
            return
        if self._flushed:
            raise OutOfOrder("Flush after flush.")
        self._flushed = True
        self._worker.flush(self.session)

    def cancel(self) -> None:
        if self._cancelled or self.reason is not None:
            return
        self._cancelled = True
        self._events = deque(event for event in self._events if not isinstance(event, AudioBatch))
        self._worker.cancel(self.session)

    def __aiter__(self) -> AsyncIterator[Event]:
        return self

    async def __anext__(self) -> Event:
        if self._read_out:
            raise StopAsyncIteration
        while not self._events:
            self._arrived.clear()
            await self._arrived.wait()
        event = self._events.popleft()
        if len(self._events) == self._max_undelivered:
            self._worker.wake()
        if isinstance(event, AudioBatch):
            self._frames_read += event.frame_count
            self._samples_read += event.sample_count
        elif isinstance(event, Ended):
            self._read_out = True
            event = replace(
                event,
                frame_count=self._frames_read,
                sample_count=self._samples_read,
                time_to_first_s=self._first_heard_s,
            )
        return event

    def deliver(self, event: Event) -> None:
        """From the engine, on the loop: sound of a cancelled utterance stops here."""
        if isinstance(event, AudioBatch):
            if self._cancelled:
                return
            if self._first_heard_s is None and self._first_fed is not None:
                self._first_heard_s = time.perf_counter() - self._first_fed
        elif isinstance(event, Ended):
            if self._cancelled and event.reason is FinishReason.COMPLETED:
                event = replace(event, reason=FinishReason.CANCELLED)
            self.reason = event.reason
            self._on_ended()
        self._events.append(event)
        self._arrived.set()
