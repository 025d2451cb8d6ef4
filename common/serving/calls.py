"""Which calls run, and whether more may begin: readiness, the cap on streams, draining. Pure asyncio, no gRPC."""

from __future__ import annotations

import asyncio
from typing import Any

from common.errors import NotReady, Overloaded


class Calls:
    """Which calls of the stage's own services run, and whether new ones may begin. On the event loop only."""

    def __init__(self, max_streams: int | None = None) -> None:
        self.ready = False
        self.draining = False
        self._max_streams = max_streams
        self._stream_count = 0
        self._running: dict[asyncio.Task[Any], bool] = {}
        self._cut: set[asyncio.Task[Any]] = set()
        self._idle = asyncio.Event()
        self._idle.set()

    @property
    def running_count(self) -> int:
        return len(self._running)

    def enter(self, task: asyncio.Task[Any], streaming: bool) -> None:
        """Admit the call that `task` runs, or raise what its caller is told."""
        if self.draining:
            raise draining_error()
        if not self.ready:
            raise NotReady("This service is starting; it answers calls once its health says SERVING.")
        if streaming and self._max_streams is not None and self._stream_count >= self._max_streams:
            raise Overloaded(f"All {self._max_streams} streams of this replica are taken.", reason="NO_SLOT")
        self._running[task] = streaming
        self._stream_count += streaming
        self._idle.clear()

    def leave(self, task: asyncio.Task[Any]) -> None:
        """The call is over; a call that was never admitted may leave too."""
        self._stream_count -= self._running.pop(task, False)
        self._cut.discard(task)
        if not self._running:
            self._idle.set()

    async def wait_idle(self) -> None:
        """Return when no call runs."""
        await self._idle.wait()

    def cut(self) -> None:
        """End every running call now; their callers are told that this service is draining."""
        for task in self._running:
            self._cut.add(task)
            task.cancel()

    def was_cut(self, task: asyncio.Task[Any]) -> bool:
        return task in self._cut


def draining_error() -> NotReady:
    """What the caller of a draining service is told."""
    return NotReady("This service is shutting down; another replica takes new calls.", reason="DRAINING")
