"""The command line's side of gRPC: channels to the services, one exchange over a stream, faults as sentences.

The only file of `cli/` that knows grpc. What is said over a stream is the business of the command that says it.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import grpc

from cli.addresses import Target
from cli.errors import CommandError
from cli.security import Security
from common.status import cause_of, error_of_call

CONNECT_TIMEOUT_S = 3.0
CALL_TIMEOUT_S = 10.0
IDLE_LIMIT_S = 60.0
"""Longest silence of a service after it has been told everything."""

_OPTIONS = (("grpc.max_receive_message_length", 16 * 1024 * 1024),)


class Keyed:
    """A channel whose calls all show a key."""

    def __init__(self, channel: grpc.aio.Channel, key: str) -> None:
        self._channel = channel
        self._metadata = (("authorization", f"Bearer {key}"),)

    def __getattr__(self, kind: str) -> Callable[..., Callable[..., Any]]:
        """`unary_unary`, `stream_stream` and so on: what generated stubs ask a channel for."""

        def method(*args: Any, **options: Any) -> Callable[..., Any]:
            call = getattr(self._channel, kind)(*args, **options)
            return functools.partial(call, metadata=self._metadata)

        return method


@asynccontextmanager
async def connected(target: Target) -> AsyncIterator[grpc.aio.Channel | Keyed]:
    """A channel to the first replica that answers; CommandError says how to start or name one, or what failed later."""
    held = target.security
    for address in target.addresses:
        async with _dialled(address, held) as channel:
            if await _connects(channel):
                try:
                    yield Keyed(channel, held.key) if held.key else channel
                except grpc.aio.AioRpcError as error:
                    raise CommandError(f"{target.service} at {address}: {error_of_call(error).message}") from error
                return
    hint = "is that its authority, and its name?" if held.tls else "if it wants TLS, see --tls-ca-file"
    raise CommandError(
        f"no {target.service} answers at {', '.join(target.addresses)}: start it with `voicemesh serve`, "
        f"or name it with {target.flag} or {target.variable}; {hint}"
    )


def _dialled(address: str, held: Security) -> grpc.aio.Channel:
    if not held.tls:
        return grpc.aio.insecure_channel(address, options=_OPTIONS)
    credentials = grpc.ssl_channel_credentials(held.ca, held.private_key, held.certificate)
    named = () if held.name is None else (("grpc.ssl_target_name_override", held.name),)
    return grpc.aio.secure_channel(address, credentials, options=(*_OPTIONS, *named))


async def exchange(
    call: Any, requests: AsyncIterator[Any], receive: Callable[[Any], bool], idle_limit_s: float = IDLE_LIMIT_S
) -> None:
    """Send every request while giving every response to `receive`, until that returns True or the stream ends.

    Raises AioRpcError, CommandError when the service falls silent for `idle_limit_s` after the last request, and
    whatever `requests` or `receive` raise.
    """
    limit = asyncio.timeout(None)
    loop = asyncio.get_running_loop()
    all_sent = asyncio.Event()

    def still_alive() -> None:
        if all_sent.is_set():
            limit.reschedule(loop.time() + idle_limit_s)

    async def send() -> None:
        async for request in requests:
            try:
                await call.write(request)
            except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
                return  # the stream has ended; reading it says why
        all_sent.set()
        still_alive()

    async def read() -> None:
        async with limit:
            while (response := await call.read()) is not grpc.aio.EOF:
                still_alive()
                if receive(response):
                    return

    try:
        async with asyncio.TaskGroup() as tasks:
            sender = tasks.create_task(send())
            await read()
            sender.cancel()
    except BaseExceptionGroup as group:
        error = cause_of(group)
        if isinstance(error, TimeoutError):
            raise CommandError(f"the service has been silent for {idle_limit_s:g} s") from None
        raise error from None
    finally:
        call.cancel()  # nothing once the stream has ended; a hang-up otherwise


def stub(kind: Callable[[Any], Any], channel: grpc.aio.Channel | Keyed) -> Any:
    """A generated stub, which has no types of its own."""
    return kind(channel)


async def unary(awaitable: Awaitable[Any], timeout_s: float = CALL_TIMEOUT_S) -> Any:
    """The one response of a call; CommandError when it takes longer than `timeout_s`."""
    try:
        return await asyncio.wait_for(awaitable, timeout_s)
    except TimeoutError as error:
        raise CommandError(f"the service has not answered within {timeout_s:g} s") from error


async def _connects(channel: grpc.aio.Channel) -> bool:
    try:
        async with asyncio.timeout(CONNECT_TIMEOUT_S):
            state = channel.get_state(try_to_connect=True)
            while state is not grpc.ChannelConnectivity.READY:
                if state is grpc.ChannelConnectivity.TRANSIENT_FAILURE:
                    return False
                await channel.wait_for_state_change(state)
                state = channel.get_state(try_to_connect=True)
            return True
    except TimeoutError:
        return False
