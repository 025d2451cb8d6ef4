"""A `SpeechLine` for callers that have no edge to run it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from common.status import cause_of
from services.gateway.pipeline import SpeechLine


@asynccontextmanager
async def running(line: SpeechLine) -> AsyncIterator[SpeechLine]:
    """The line runs inside; leaving it waits for the ends of what it carries, an error cuts them off. Raises what was
    raised inside, not in a group."""
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(line.run())
            yield line
            line.finish()
    except BaseExceptionGroup as failed:
        raise cause_of(failed) from None
