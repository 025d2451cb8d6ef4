"""A small real service for the tests of common/: the codec's contract over handlers that a test writes itself.

As a program (`python -m tests.common.service`) it is a process like every service of the mesh: `Decode` echoes each
request's seq; with `--next`, it passes the work on to another process first, as the gateway does.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Annotated, Any, ClassVar

import grpc
from pydantic import Field
from voicemesh.codec.v1 import codec_pb2, codec_pb2_grpc
from voicemesh.stream.v1 import stream_pb2

from common.config import ServiceConfig, load_or_exit
from common.serving import Part, Server, run_service
from common.telemetry import SpanName, Telemetry
from tests.mesh.processes import ROOT, end, read_ready_lines

Stub: Any = codec_pb2_grpc.CodecServiceStub
NAME = "voicemesh.codec.v1.CodecService"
DECODE = f"/{NAME}/Decode"
GET_CODEC = f"/{NAME}/GetCodec"
ENCODE = f"/{NAME}/Encode"


class EchoConfig(ServiceConfig):
    """Echoes codec frames, for tests."""

    service: ClassVar[str] = "codec"

    next: Annotated[str, Field(description="Who decodes for us; empty: nobody.")] = ""
    start_s: Annotated[float, Field(ge=0, description="How long starting takes.")] = 0.0
    fault: Annotated[str, Field(description="What goes wrong: start, or nothing.")] = ""


class Servicer(codec_pb2_grpc.CodecServiceServicer):
    """The three kinds of method, each a function that the test gives."""

    def __init__(
        self,
        decode: Callable[..., Any] | None = None,
        encode: Callable[..., Awaitable[Any]] | None = None,
        get_codec: Callable[..., Awaitable[Any]] | None = None,
    ) -> None:
        given = {"Decode": decode, "Encode": encode, "GetCodec": get_codec}
        vars(self).update({method: handler for method, handler in given.items() if handler})


async def echo(requests: AsyncIterator[Any], context: Any) -> AsyncIterator[codec_pb2.DecodeResponse]:
    """Each request's seq, sent back."""
    async for request in requests:
        yield codec_pb2.DecodeResponse(seq=request.seq)


@asynccontextmanager
async def serving(
    servicer: Servicer, config: ServiceConfig | None = None, telemetry: Telemetry | None = None, **limits: int
) -> AsyncIterator[tuple[Server, Any]]:
    """A ready server on a free port and a channel to it."""
    server = Server(config or EchoConfig(), telemetry)
    server.add(codec_pb2_grpc.add_CodecServiceServicer_to_server, servicer, NAME, **limits)
    await server.start()
    await server.set_ready(True)
    try:
        async with dialled(server.address) as channel:
            yield server, channel
    finally:
        await server.stop()


@contextmanager
def launched(*flags: str, environment: dict[str, str] | None = None) -> Iterator[subprocess.Popen[bytes]]:
    """This module as a process with pipes, ended when the test is done with it."""
    variables = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "gen")]), **(environment or {})}
    command = [sys.executable, "-m", "tests.common.service", *flags]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT, env=variables) as child:
        try:
            yield child
        finally:
            end(child)


@contextmanager
def process(*flags: str, environment: dict[str, str] | None = None) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """The same, READY, with its address."""
    with launched("--port", "0", *flags, environment=environment) as child:
        yield child, read_ready_lines(child, 1, 15)["codec"]["address"]


def dialled(address: str) -> Any:
    """A channel that can send what a stranger could."""
    return grpc.aio.insecure_channel(address, options=(("grpc.max_send_message_length", -1),))


async def failed(call: Any) -> grpc.aio.AioRpcError:
    """Read a stream, or await a call, that must fail, and return its error."""
    try:
        if hasattr(call, "read"):
            while await call.read() is not grpc.aio.EOF:
                pass
        else:
            await call
    except grpc.aio.AioRpcError as error:
        return error
    raise AssertionError("the call succeeded")


class _Chain(codec_pb2_grpc.CodecServiceServicer):
    """One utterance per `start`: a span of its own, and the same on the next process when there is one."""

    def __init__(self, server: Server, next_address: str) -> None:
        self._telemetry = server.telemetry
        self._next = next_address

    async def Decode(self, requests: AsyncIterator[Any], context: Any) -> AsyncIterator[codec_pb2.DecodeResponse]:
        async for request in requests:
            if request.WhichOneof("payload") != "start":
                yield codec_pb2.DecodeResponse(seq=request.seq)
                continue
            trace = request.start.trace
            work = self._telemetry.utterance(
                SpanName.CODEC_DECODE, (trace.traceparent, trace.tracestate), session_id="s1", epoch=request.epoch
            )
            if self._next:
                await self._pass_on(work.trace_parent(), request)
            work.end("COMPLETED")
            yield codec_pb2.DecodeResponse(seq=request.seq)

    async def _pass_on(self, parent: tuple[str, str], request: codec_pb2.DecodeRequest) -> None:
        trace = stream_pb2.TraceContext(traceparent=parent[0], tracestate=parent[1])
        async with dialled(self._next) as channel:
            call = Stub(channel).Decode()
            await call.write(codec_pb2.DecodeRequest(epoch=request.epoch, start=codec_pb2.DecodeStart(trace=trace)))
            await call.done_writing()
            async for _ in call:
                pass


class _Starting:
    def __init__(self, config: EchoConfig) -> None:
        self._config = config

    async def start(self) -> None:
        await asyncio.sleep(self._config.start_s)
        if self._config.fault == "start":
            raise RuntimeError("the weights are not there")

    async def close(self) -> None:
        pass


def main() -> int:
    """Run it as a process."""
    config = load_or_exit(EchoConfig)

    def build(server: Server) -> Part:
        server.add(codec_pb2_grpc.add_CodecServiceServicer_to_server, _Chain(server, config.next), NAME)
        return _Starting(config)

    return run_service(config, build)


if __name__ == "__main__":
    sys.exit(main())
