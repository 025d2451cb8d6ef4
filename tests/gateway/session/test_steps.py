"""Timers of one conversation: what one of them raises is told, and the others come."""

from __future__ import annotations

import asyncio

from services.gateway.session.steps import Alarms


async def test_what_a_timer_raises_is_told_and_the_others_come() -> None:
    told: list[BaseException] = []
    rang = asyncio.Event()
    alarms = Alarms(told.append)
    now_s = asyncio.get_running_loop().time()
    alarms.set("broken", now_s, lambda: {}["missing"])
    alarms.set("sound", now_s + 0.01, rang.set)
    await asyncio.wait_for(rang.wait(), 5)
    assert [type(error) for error in told] == [KeyError]
