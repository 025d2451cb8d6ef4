"""Requests on their way to a handler: bytes that are no message, or too large, are refused where the handler would see
them.

grpc.aio gives a deserialiser no say in the status of a call: whatever it raises becomes UNKNOWN. So ours never raises:
it returns a `Refused` in the place of the message, and what hands messages to the handler raises the fault there.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

from google.protobuf.message import DecodeError

from common.errors import InvalidRequest, MeshError


class Refused:
    """Stands where a request would stand, and says why there is none."""

    __slots__ = ("error",)

    def __init__(self, error: MeshError) -> None:
        self.error = error


def checked(message: Any) -> Any:
    if type(message) is Refused:
        raise message.error
    return message


def guarded(deserialise: Callable[[bytes], Any] | None, max_bytes: int) -> Callable[[bytes], Any]:
    def read(payload: bytes) -> Any:
        if len(payload) > max_bytes:
            sentence = f"A request of {len(payload)} bytes is larger than the {max_bytes} bytes that this method takes."
            return Refused(InvalidRequest(sentence, reason="TOO_LARGE", max_bytes=str(max_bytes)))
        try:
            return deserialise(payload) if deserialise else payload
        except (DecodeError, ValueError):
            return Refused(InvalidRequest("These bytes are not a message of this method.", reason="UNDECODABLE"))

    return read


class Requests:
    """The requests of one call as an iterator that remembers when they ended."""

    __slots__ = ("_inner", "_loop", "ended_at")

    def __init__(self, inner: AsyncIterator[Any]) -> None:
        self._inner = inner
        self._loop = asyncio.get_running_loop()
        self.ended_at: float | None = None

    def __aiter__(self) -> Requests:
        return self

    async def __anext__(self) -> Any:
        try:
            return checked(await self._inner.__anext__())
        except StopAsyncIteration:
            self.ended_at = self._loop.time()
            raise


class Context:
    """A servicer context whose `read` refuses what our deserialiser refused; everything else is grpc's own."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner
        self.write = inner.write

    async def read(self) -> Any:
        return checked(await self._inner.read())

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)
