"""A `SpeechLine` for callers that have no edge to run it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from common.status import cause_of
from services.gateway.pipeline import SpeechLine


@asynccontextmanager
async def running(line: SpeechLine) -> AsyncIterator[SpeechLine]:
    """The line runs inside, and what it carries ends with it. Raises what was raised inside, not in a group."""
    try:
        async with asyncio.TaskGroup() as group:
            task = group.create_task(line.run())
            try:
                yield line
            finally:
                task.cancel()
    except BaseExceptionGroup as failed:
        raise cause_of(failed) from None
