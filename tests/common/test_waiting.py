"""Waiting on a loop that was kept from running."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Awaitable, Callable

import pytest
import uvloop

from common.waiting import attentive_sleep

LOOPS = pytest.mark.parametrize("loop_factory", [uvloop.new_event_loop, asyncio.new_event_loop])
LoopFactory = Callable[[], asyncio.AbstractEventLoop]


HANDS = 4  # that a packet goes through until it is known to be sound


async def _is_understood_within(wait: Callable[[float], Awaitable[None]]) -> bool:
    """Whether what came by a socket while the loop stood still has gone through all hands when a wait is over that ran
    out meanwhile."""
    ours, theirs = socket.socketpair()
    queues: list[asyncio.Queue[bytes]] = [asyncio.Queue() for _ in range(HANDS + 1)]

    async def hand_on(number: int) -> None:
        queues[number + 1].put_nowait(await queues[number].get())

    with ours, theirs:
        ours.setblocking(False)
        loop = asyncio.get_running_loop()
        loop.add_reader(ours, lambda: queues[0].put_nowait(ours.recv(1)))
        hands = [asyncio.ensure_future(hand_on(number)) for number in range(HANDS)]
        waiting = asyncio.ensure_future(wait(0.05))
        await asyncio.sleep(0)
        theirs.send(b"x")
        time.sleep(0.2)  # noqa: ASYNC251 - that is the point
        await waiting
        loop.remove_reader(ours)
        for hand in hands:
            hand.cancel()
        return not queues[-1].empty()


@LOOPS
def test_what_came_while_the_loop_stood_still_is_understood_first(loop_factory: LoopFactory) -> None:
    with asyncio.Runner(loop_factory=loop_factory) as runner:
        assert runner.run(_is_understood_within(attentive_sleep))


@LOOPS
def test_a_plain_sleep_is_over_before_it_is_understood(loop_factory: LoopFactory) -> None:
    """The reason for the module."""
    with asyncio.Runner(loop_factory=loop_factory) as runner:
        assert not runner.run(_is_understood_within(asyncio.sleep))
