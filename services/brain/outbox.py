"""The events of one turn on their way to its reader: in order, bounded, the last one exactly once."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator

from common.errors import Overloaded
from services.brain.types import Ended, Event, Started


class Outbox:
    """A queue with one reader. When it is full, `tell` waits for room, and gives up after `reader_timeout_s`."""

    def __init__(self, limit: int, reader_timeout_s: float) -> None:
        self._limit = limit
        self._reader_timeout_s = reader_timeout_s
        self._events: deque[Event] = deque()
        self._readable, self._writable = asyncio.Event(), asyncio.Event()

    @property
    def full(self) -> bool:
        """Whether `tell` would wait."""
        return len(self._events) >= self._limit

    def put(self, event: Event) -> None:
        """Queue at once: for the few events that a turn has one of."""
        self._events.append(event)
        self._readable.set()

    async def tell(self, event: Event) -> None:
        """Queue as soon as there is room. Raises `Overloaded` when the reader leaves none for too long."""
        while self.full:
            self._writable.clear()
            try:
                async with asyncio.timeout(self._reader_timeout_s) as watch:
                    await self._writable.wait()
            except TimeoutError:
                if not watch.expired():
                    raise
                raise Overloaded("the answer was not read", reason="SLOW_READER") from None
        self.put(event)

    def drop_unread(self) -> bool:
        """Forget everything that nobody has read, except that the turn had started; tell whether its end was there."""
        had_ended = any(isinstance(event, Ended) for event in self._events)
        self._events = deque(event for event in self._events if isinstance(event, Started))
        self._writable.set()
        return had_ended

    async def __aiter__(self) -> AsyncIterator[Event]:
        while True:
            while self._events:
                event = self._events.popleft()
                self._writable.set()
                yield event
                if isinstance(event, Ended):
                    return
            self._readable.clear()
            await self._readable.wait()
