"""Requests on their way to a handler: bytes that are no message, or too large, are refused where the handler would see
them.

grpc.aio gives a deserialiser no say in the status of a call: whatever it raises becomes UNKNOWN. So ours never raises:
it returns a `Refused` in the place of the message, and what hands messages to the handler raises the fault there.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc
from google.protobuf.message import DecodeError

from common.errors import InvalidRequest, MeshError


class Refused:
    """Stands where a request would stand, and says why there is none."""

    __slots__ = ("error",)

    def __init__(self, error: MeshError) -> None:
        self.error = error


def guarded(deserialise: Callable[[bytes], Any] | None, max_bytes: int) -> Callable[[bytes], Any]:
    """The deserialiser of a method, with a limit: a message, or a `Refused` in its place."""

    def read(payload: bytes) -> Any:
        if len(payload) > max_bytes:
            sentence = f"A request of {len(payload)} bytes is larger than the {max_bytes} bytes that this method takes."
            return Refused(InvalidRequest(sentence, reason="TOO_LARGE", max_bytes=str(max_bytes)))
        try:
            return deserialise(payload) if deserialise else payload
        except (DecodeError, ValueError):
            return Refused(InvalidRequest("These bytes are not a message of this method.", reason="UNDECODABLE"))

    return read


class Inbox:
    """What hands the requests of one call to its handler, and remembers when they ended."""

    def __init__(self, context: Any) -> None:
        self._context = context
        self._loop = asyncio.get_running_loop()
        self.ended_at: float | None = None

    def checked(self, message: Any) -> Any:
        """The message, or the raised reason why there is none."""
        if type(message) is Refused:
            raise message.error
        return message

    async def next(self, requests: AsyncIterator[Any]) -> Any:
        """The next of a handler that iterates."""
        try:
            return self.checked(await anext(requests))
        except StopAsyncIteration:
            self.ended_at = self._loop.time()
            raise

    async def read(self) -> Any:
        """The next of a handler that reads."""
        message = await self._context.read()
        if message is grpc.aio.EOF:
            self.ended_at = self._loop.time()
        return self.checked(message)


class Requests:
    """The iterator that a handler gets."""

    __slots__ = ("_inbox", "_inner")

    def __init__(self, inner: AsyncIterator[Any], inbox: Inbox) -> None:
        self._inner = inner
        self._inbox = inbox

    def __aiter__(self) -> Requests:
        return self

    async def __anext__(self) -> Any:
        return await self._inbox.next(self._inner)


class Context:
    """The servicer context that a handler gets: grpc's own, but `read` refuses what our deserialiser refused."""

    def __init__(self, inner: Any, inbox: Inbox) -> None:
        self._inner = inner
        self.read = inbox.read
        self.write = inner.write

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)
