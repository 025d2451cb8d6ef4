"""Conversations that write down what a transport does to them, and a stay in a room to try them in."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import numpy as np

from common.errors import MeshError, UnknownName
from services.gateway.livekit.stay import Stay
from services.gateway.session.ports import Block, Conversation, SessionEvent, Sessions, SessionSettings, Transport
from tests.gateway.livekit.fake_sdk import FakeServer


class WrittenDown:
    """A conversation: what was done to it, in order."""

    def __init__(self, transport: Any, token: str) -> None:
        self.transport = transport
        self.resume_token = token
        self.heard: list[Any] = []
        self.done: list[Any] = []

    def hear(self, samples: Any, arrived_s: float) -> None:
        self.heard.append(samples)

    def type(self, text: str) -> None:
        if text == "refuse":
            raise MeshError("no")
        self.done.append(("type", text))

    def suspend(self) -> None:
        self.done.append("suspend")

    async def close(self, reason: str) -> None:
        self.done.append(f"close {reason}")

    def tell(self, *events: SessionEvent) -> None:
        """The session tells its transport."""
        for event in events:
            self.transport.tell(event)

    def play(self, *blocks: Block) -> None:
        for block in blocks:
            self.transport.play(block)


class House:
    """All of them, as `Sessions`."""

    def __init__(self) -> None:
        self.opened: list[WrittenDown] = []
        self.refusal: MeshError | None = None
        self.forgotten = False

    def open(
        self, transport: Transport, settings: SessionSettings, *, session_id: str = "", resume_token: str = ""
    ) -> Any:
        if self.refusal is not None:
            raise self.refusal
        if resume_token and self.forgotten:
            raise UnknownName("no such session")
        if resume_token:
            (conversation,) = [one for one in self.opened if one.resume_token == resume_token]
            conversation.transport = transport
            conversation.done.append("attach")
            return conversation
        self.opened.append(WrittenDown(transport, f"token-{len(self.opened)}"))
        return self.opened[-1]


def block(value: int = 1, *, epoch: int = 0, offset: int = 0) -> Block:
    return Block(np.full(480, value, np.int16), is_speech=True, epoch=epoch, first_sample_offset=offset)


async def until(condition: Callable[[], Any]) -> None:
    """Wait for what nobody tells; the test's time limit is the limit."""
    while not condition():  # noqa: ASYNC110
        await asyncio.sleep(0.001)


@asynccontextmanager
async def staying(server: FakeServer, house: House, **options: Any) -> AsyncIterator[tuple[Stay, asyncio.Task[None]]]:
    """A stay in that room, left in the end."""
    sessions: Any = house
    conversations: Callable[[], Sessions] = lambda: sessions  # noqa: E731
    options = {"settings": SessionSettings(), **options}
    stay = Stay(server.sdk, lambda: ("ws://livekit", "token"), conversations, **options)
    task = asyncio.ensure_future(stay.run())
    try:
        yield stay, task
    finally:
        stay.leave()
        await asyncio.wait([task])


__all__ = ["Conversation", "House", "WrittenDown", "block", "staying", "until"]
