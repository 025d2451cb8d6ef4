"""What runs beside one conversation. A bug in it ends this conversation, not the others."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any


class Tasks:
    """`broken` is told what one of them raised."""

    def __init__(self, broken: Callable[[BaseException], None]) -> None:
        self._broken = broken
        self._loop = asyncio.get_running_loop()
        self._tasks: set[asyncio.Task[None]] = set()

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run it."""
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._broken(error)

    async def end(self, patience_s: float) -> None:
        """Wait for all but the one that asks, then cancel what is left."""
        mine = asyncio.current_task()
        others = [task for task in self._tasks if task is not mine]
        if others:
            await asyncio.wait(others, timeout=patience_s)
        for task in others:
            task.cancel()
