"""Where a call enters and leaves a service: the one interceptor of the mesh.

It turns what escapes a handler into a status and a call that may not begin now into UNAVAILABLE; it gives every call
its span and knows which calls run. It refuses to know what any service does.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AbstractContextManager, aclosing, contextmanager, nullcontext
from typing import Any, NoReturn

import grpc
from google.rpc import status_pb2

from common.errors import Broken, MeshError
from common.serving.calls import Calls, draining_error
from common.serving.messages import Context, Inbox, Requests, guarded
from common.status import DETAILS_KEY, cause_of, status_of
from common.telemetry import NoTrace, RpcTrace, Telemetry

logger = logging.getLogger(__name__)

# After a caller hangs up, grpc.aio first ends the request iterator and then cancels the handler, some 0.1 ms apart, and
# has no call that tells a hang-up from a half-close. A handler that returns in between waits this long for the news, so
# that the call is counted as what it was.
_HANG_UP_GRACE_S = 0.002
Admission = Callable[[str, Any], AbstractContextManager[object]]
"""What a service asks before each call of its own methods: the method, and grpc's context. Raises who may not."""
_CODES = {code.value[0]: code for code in grpc.StatusCode}


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

    async def run(self, behaviour: Any, request: Any, of_stream: bool, serialise: Any) -> Any:
        """Admit the call, run the handler, and raise nothing that grpc.aio would make an UNKNOWN of."""
        boundary = self._boundary
        trace = boundary.telemetry.rpc(self._method, self._context.invocation_metadata())
        try:
            with self._admission():
                response = await self._answer(behaviour, request, of_stream)
            return serialise(response) if serialise and self._status() is grpc.StatusCode.OK else b""
        except BaseException as error:
            await self._tell(error, trace)
        finally:
            boundary.calls.leave(self._task)
            trace.end(self._status().name)

    @contextmanager
    def _admission(self) -> Iterator[None]:
        """Whoever may not call takes no stream from those who may."""
        boundary = self._boundary
        if self._method.split("/")[1] not in boundary.own:
            yield
            return
        with boundary.admission(self._method, self._context):
            boundary.calls.enter(self._task, self._streaming)
            yield

    def _status(self) -> grpc.StatusCode:
        return self._context.code() or grpc.StatusCode.OK

    async def _answer(self, behaviour: Any, request: Any, of_stream: bool) -> Any:
        inbox = Inbox(self._context)
        request = Requests(request, inbox) if of_stream else inbox.checked(request)
        result = behaviour(request, Context(self._context, inbox))
        if not hasattr(result, "__aiter__"):
            response = await result
        else:
            response = None
            async with aclosing(result) as responses:
                async for message in responses:
                    await self._context.write(message)
        if inbox.ended_at is not None:
            await self._await_hang_up(inbox.ended_at)
        return response

    async def _await_hang_up(self, ended_at: float) -> None:
        remaining_s = ended_at + _HANG_UP_GRACE_S - asyncio.get_running_loop().time()
        if remaining_s > 0:
            await asyncio.sleep(remaining_s)

    async def _tell(self, error: BaseException, trace: RpcTrace | NoTrace) -> NoReturn:
        """Raise what makes grpc.aio send the right status for what escaped the handler."""
        cause = cause_of(error)
        if isinstance(cause, grpc.aio.AbortError):
            raise cause
        if isinstance(cause, KeyboardInterrupt | SystemExit | GeneratorExit):
            raise cause
        if self._boundary.calls.was_cut(self._task):
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

    async def _abort(self, status: status_pb2.Status) -> NoReturn:
        details = ((DETAILS_KEY, status.SerializeToString()),)
        try:
            await self._context.abort(_CODES[status.code], status.message, details)
        except grpc.aio.InternalError:  # nobody is there to be told
            raise asyncio.CancelledError from None
        raise AssertionError("abort always raises")


class Boundary(grpc.aio.ServerInterceptor):
    """The interceptor. `own` holds the full names of the services that readiness, draining and limits are about;
    health, reflection and channelz always answer."""

    def __init__(self, calls: Calls, telemetry: Telemetry, max_request_bytes: Callable[[str], int]) -> None:
        self.own: set[str] = set()
        self.calls = calls
        self.telemetry = telemetry
        self.admission: Admission = lambda method, context: nullcontext()
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
        deserialise = guarded(handler.request_deserializer, self._max_request_bytes(method))
        of_stream, to_stream = handler.request_streaming, handler.response_streaming
        shapes = {
            (False, False): (handler.unary_unary, grpc.unary_unary_rpc_method_handler),
            (False, True): (handler.unary_stream, grpc.unary_stream_rpc_method_handler),
            (True, False): (handler.stream_unary, grpc.stream_unary_rpc_method_handler),
            (True, True): (handler.stream_stream, grpc.stream_stream_rpc_method_handler),
        }
        behaviour, rebuild = shapes[of_stream, to_stream]

        # One answer is serialised inside the call, so that an answer that cannot be is INTERNAL and not UNKNOWN.
        inner, outer = (None, handler.response_serializer) if to_stream else (handler.response_serializer, None)

        async def call(request: Any, context: Any) -> Any:
            running = _Call(self, method, of_stream or to_stream, context)
            return await running.run(behaviour, request, of_stream, inner)

        return rebuild(call, request_deserializer=deserialise, response_serializer=outer)
