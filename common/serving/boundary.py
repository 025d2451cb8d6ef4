"""Where a call enters and leaves a service: the one interceptor of the mesh.

It turns what escapes a handler into a status, bytes that are no message into INVALID_ARGUMENT, and a call that may not
begin now into UNAVAILABLE; it gives every call its span and knows which calls run. It refuses to know what any service
does.

grpc.aio gives a deserialiser no say in the status of a call (whatever it raises becomes UNKNOWN, and on a stream only
after the handler has seen it), so ours never raises: it returns a `_Refused` in the place of the message, and what
hands messages to the handler raises it there.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from typing import Any

import grpc
from google.protobuf.message import DecodeError
from google.rpc import status_pb2

from common.errors import Broken, InvalidRequest, MeshError, NotReady, Overloaded
from common.status import DETAILS_KEY, cause_of, status_of
from common.telemetry import RpcTrace, Telemetry

logger = logging.getLogger(__name__)

DEFAULT_MAX_REQUEST_BYTES = 4 * 1024 * 1024
# What grpc itself takes: far above the limits per method, so that those can answer with a sentence instead of a cut.
TRANSPORT_MAX_BYTES = 20 * 1024 * 1024
# After a caller hangs up, grpc.aio first ends the request iterator and then cancels the handler, some 0.1 ms apart, and
# has no call that tells a hang-up from a half-close before that. A handler that returns in between waits this long for
# the news.
_HANG_UP_GRACE_S = 0.002
_CODES = {code.value[0]: code for code in grpc.StatusCode}


class _Refused:
    """Stands where a request would stand, and says why there is none."""

    __slots__ = ("error",)

    def __init__(self, error: MeshError) -> None:
        self.error = error


def _checked(message: Any) -> Any:
    if type(message) is _Refused:
        raise message.error
    return message


def _guarded(deserialise: Callable[[bytes], Any] | None, max_bytes: int) -> Callable[[bytes], Any]:
    def read(payload: bytes) -> Any:
        if len(payload) > max_bytes:
            sentence = f"A request of {len(payload)} bytes is larger than the {max_bytes} bytes that this method takes."
            return _Refused(InvalidRequest(sentence, reason="TOO_LARGE", max_bytes=str(max_bytes)))
        try:
            return deserialise(payload) if deserialise else payload
        except (DecodeError, ValueError):
            return _Refused(InvalidRequest("These bytes are not a message of this method.", reason="UNDECODABLE"))

    return read


class _Requests:
    """The requests of one call as an iterator that remembers when they ended."""

    __slots__ = ("_inner", "_loop", "ended_at")

    def __init__(self, inner: AsyncIterator[Any]) -> None:
        self._inner = inner
        self._loop = asyncio.get_running_loop()
        self.ended_at: float | None = None

    def __aiter__(self) -> _Requests:
        return self

    async def __anext__(self) -> Any:
        try:
            return _checked(await self._inner.__anext__())
        except StopAsyncIteration:
            self.ended_at = self._loop.time()
            raise


class _Context:
    """A servicer context whose `read` refuses what our deserialiser refused; everything else is grpc's own."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner
        self.write = inner.write

    async def read(self) -> Any:
        return _checked(await self._inner.read())

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


class Calls:
    """Which calls of the stage's own services run, and whether new ones may begin. On the event loop only."""

    def __init__(self, max_streams: int | None = None) -> None:
        self.ready = False
        self.draining = False
        self._max_streams = max_streams
        self._stream_count = 0
        self._running: dict[asyncio.Task[Any], bool] = {}
        self._cut: set[asyncio.Task[Any]] = set()
        self._idle = asyncio.Event()
        self._idle.set()

    @property
    def running_count(self) -> int:
        return len(self._running)

    def enter(self, task: asyncio.Task[Any], streaming: bool) -> None:
        """Admit the call that `task` runs, or raise what its caller is told."""
        if self.draining:
            raise draining_error()
        if not self.ready:
            raise NotReady("This service is starting; it answers calls once its health says SERVING.")
        if streaming and self._max_streams is not None and self._stream_count >= self._max_streams:
            raise Overloaded(f"All {self._max_streams} streams of this replica are taken.", reason="NO_SLOT")
        self._running[task] = streaming
        self._stream_count += streaming
        self._idle.clear()

    def leave(self, task: asyncio.Task[Any]) -> None:
        """The call is over; a call that was never admitted may leave too."""
        self._stream_count -= self._running.pop(task, False)
        self._cut.discard(task)
        if not self._running:
            self._idle.set()

    async def wait_idle(self) -> None:
        """Return when no call runs."""
        await self._idle.wait()

    def cut(self) -> None:
        """End every running call now; their callers are told that this service is draining."""
        for task in self._running:
            self._cut.add(task)
            task.cancel()

    def was_cut(self, task: asyncio.Task[Any]) -> bool:
        return task in self._cut


def draining_error() -> NotReady:
    """What the caller of a draining service is told."""
    return NotReady("This service is shutting down; another replica takes new calls.", reason="DRAINING")


class _Call:
    """One call from its first message to its status."""

    def __init__(self, boundary: Boundary, method: str, streaming: bool, context: Any) -> None:
        task = asyncio.current_task()
        assert task is not None, "grpc.aio runs handlers in tasks"
        self._task = task
        self._boundary = boundary
        self._method = method
        self._streaming = streaming
        self._context = context

    async def run(self, behaviour: Any, request: Any, of_stream: bool, to_stream: bool) -> Any:
        """Admit the call, run the handler, and raise nothing that grpc.aio would make an UNKNOWN of."""
        calls, trace = (
            self._boundary.calls,
            self._boundary.telemetry.rpc(self._method, self._context.invocation_metadata()),
        )
        try:
            if self._method.split("/")[1] in self._boundary.own:
                calls.enter(self._task, self._streaming)
            return await self._answer(behaviour, request, of_stream, to_stream)
        except BaseException as error:
            await self._tell(error, trace)
            raise AssertionError("telling always raises") from error
        finally:
            calls.leave(self._task)
            trace.end((self._context.code() or grpc.StatusCode.OK).name)

    async def _answer(self, behaviour: Any, request: Any, of_stream: bool, to_stream: bool) -> Any:
        request = _Requests(request) if of_stream else _checked(request)
        result = behaviour(request, _Context(self._context))
        if not hasattr(result, "__aiter__"):
            response = await result
        else:
            response = None
            async with aclosing(result) as responses:
                async for message in responses:
                    await self._context.write(message)
        if of_stream and request.ended_at is not None:
            await self._await_hang_up(request.ended_at)
        return response

    async def _await_hang_up(self, ended_at: float) -> None:
        remaining_s = ended_at + _HANG_UP_GRACE_S - asyncio.get_running_loop().time()
        if remaining_s > 0:
            await asyncio.sleep(remaining_s)

    async def _tell(self, error: BaseException, trace: RpcTrace) -> None:
        """Raise what makes grpc.aio send the right status for what escaped the handler."""
        cause = cause_of(error)
        if isinstance(cause, grpc.aio.AbortError):
            raise cause
        if isinstance(cause, KeyboardInterrupt | SystemExit | GeneratorExit):
            raise cause
        if self._boundary.calls.was_cut(self._task):
            self._task.uncancel()
            await self._abort(status_of(draining_error()))
        if self._caller_is_gone(cause):
            gone = "DEADLINE_EXCEEDED" if self._context.time_remaining() == 0 else "CANCELLED"
            trace.end(gone)
            logger.debug("caller is gone", extra={"method": self._method, "status": gone})
            raise asyncio.CancelledError from None
        if isinstance(cause, asyncio.CancelledError):
            cause = Broken("The call was cancelled from inside.")
        if not isinstance(cause, MeshError) or isinstance(cause, Broken):
            logger.error("call failed", exc_info=error, extra={"method": self._method})
        await self._abort(status_of(cause))

    def _caller_is_gone(self, cause: BaseException) -> bool:
        """grpc.aio cancels the handler's task, or a write fails before it does. A `CancelledError` that nobody sent to
        this task is a bug of the handler: grpc.aio would swallow it and leave the caller waiting."""
        if isinstance(cause, asyncio.CancelledError):
            return self._task.cancelling() > 0
        return isinstance(cause, grpc.aio.InternalError) and "execute_batch" in str(cause)

    async def _abort(self, status: status_pb2.Status) -> None:
        details = ((DETAILS_KEY, status.SerializeToString()),)
        await self._context.abort(_CODES[status.code], status.message, details)


class Boundary(grpc.aio.ServerInterceptor):
    """The interceptor. `own` holds the full names of the services that readiness, draining and limits are about;
    health, reflection and channelz always answer."""

    def __init__(self, calls: Calls, telemetry: Telemetry, max_request_bytes: Callable[[str], int]) -> None:
        self.own: set[str] = set()
        self.calls = calls
        self.telemetry = telemetry
        self._max_request_bytes = max_request_bytes
        self._wrapped: dict[str, Any] = {}

    async def intercept_service(self, continuation: Callable[[Any], Awaitable[Any]], details: Any) -> Any:
        handler = await continuation(details)
        if handler is None:
            return None
        known = self._wrapped.get(details.method)
        if known is None:
            known = self._wrapped[details.method] = self._wrap(details.method, handler)
        return known

    def _wrap(self, method: str, handler: Any) -> Any:
        """The handler again, with its deserialiser and its behaviour inside ours. Four shapes, two kinds of answer."""
        deserialise = _guarded(handler.request_deserializer, self._max_request_bytes(method))
        of_stream, to_stream = handler.request_streaming, handler.response_streaming
        shapes = {
            (False, False): (handler.unary_unary, grpc.unary_unary_rpc_method_handler),
            (False, True): (handler.unary_stream, grpc.unary_stream_rpc_method_handler),
            (True, False): (handler.stream_unary, grpc.stream_unary_rpc_method_handler),
            (True, True): (handler.stream_stream, grpc.stream_stream_rpc_method_handler),
        }
        behaviour, rebuild = shapes[of_stream, to_stream]

        async def call(request: Any, context: Any) -> Any:
            return await _Call(self, method, of_stream or to_stream, context).run(
                behaviour, request, of_stream, to_stream
            )

        return rebuild(call, request_deserializer=deserialise, response_serializer=handler.response_serializer)
