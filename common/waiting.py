"""Waiting on an event loop that may itself be late.

What comes by a socket takes several turns of the loop until a task has understood it; what is due takes one. After a
stall a plain time-out therefore ends first, and on a busy machine people are lost who never were silent.
"""

from __future__ import annotations

import asyncio

_LOOKS = 5


async def attentive_sleep(delay_s: float) -> None:
    """Sleep so long in several pieces: what had come before it is over has been understood then."""
    for _ in range(_LOOKS):
        await asyncio.sleep(delay_s / _LOOKS)
