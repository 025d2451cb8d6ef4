"""A caller of `Synthesize` for tests: says what it is told to, keeps what it hears, and checks what always holds."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
from voicemesh.gateway.v1 import gateway_pb2, gateway_pb2_grpc
from voicemesh.stream.v1 import stream_pb2

from common.stream import FinishReason

Stub: Any = gateway_pb2_grpc.SpeechServiceStub


class Caller:
    """One stream. Every response is checked for its marks; every packet must join the one before."""

    def __init__(self, call: Any) -> None:
        self.call = call
        self.packets: list[Any] = []
        self.seed: int | None = None
        self.ended: Any = None
        self._seq = 0
        self._samples = 0

    async def start(self, *, seed: int = 7, epoch: int | None = None, **start: Any) -> None:
        self.packets, self.ended, self._samples = [], None, 0
        request = gateway_pb2.SynthesizeRequest(epoch=epoch, start=gateway_pb2.SynthesizeStart(**start))
        request.start.speech.sampling.seed = seed
        await self.call.write(request)

    async def text(self, text: str) -> None:
        await self.call.write(gateway_pb2.SynthesizeRequest(text=text))

    async def flush(self) -> None:
        await self.call.write(gateway_pb2.SynthesizeRequest(flush=stream_pb2.Flush()))

    async def stop(self) -> None:
        await self.call.write(gateway_pb2.SynthesizeRequest(stop=stream_pb2.Stop()))

    async def boundary(self) -> None:
        await self.call.write(gateway_pb2.SynthesizeRequest(boundary=gateway_pb2.Boundary()))

    async def credit(self, frames: int) -> None:
        await self.call.write(gateway_pb2.SynthesizeRequest(credit=stream_pb2.Credit(frames=frames)))

    async def say(self, text: str, **start: Any) -> Any:
        """One utterance from start to end; returns its end."""
        await self.start(**start)
        await self.text(text)
        await self.flush()
        return await self.to_end()

    async def next(self) -> Any:
        """The next response."""
        response = await self.call.read()
        assert response is not grpc.aio.EOF, "the stream ended"
        assert response.seq == self._seq, "a response is missing or doubled"
        self._seq += 1
        payload = response.WhichOneof("payload")
        if payload == "started":
            self.seed = response.started.seed
        elif payload == "audio":
            assert response.audio.first_sample_offset == self._samples, "samples are missing or doubled"
            self._samples += response.audio.sample_count
            self.packets.append(response.audio)
        elif payload == "ended":
            assert self.ended is None, "an utterance ended twice"
            self.ended = response.ended
        return response

    async def heard(self, frames: int) -> None:
        """Return when so many frames of the utterance have been heard, or it has ended."""
        while self.frame_count < frames and self.ended is None:
            await self.next()

    async def to_end(self) -> Any:
        """How the utterance ended."""
        while self.ended is None:
            await self.next()
        return self.ended

    @property
    def frame_count(self) -> int:
        return sum(packet.frame_count for packet in self.packets)

    @property
    def pcm(self) -> bytes:
        return b"".join(packet.payload for packet in self.packets)

    @property
    def reason(self) -> FinishReason:
        return FinishReason(self.ended.reason)


@asynccontextmanager
async def calling(address: str) -> AsyncIterator[Caller]:
    """A stream to the gateway at that address."""
    async with dialled(address) as channel:
        yield opened(channel)


def dialled(address: str) -> grpc.aio.Channel:
    return grpc.aio.insecure_channel(address)


def opened(channel: grpc.aio.Channel) -> Caller:
    """One more stream on a channel."""
    return Caller(Stub(channel).Synthesize())


def reason_of(ended: Any) -> str:
    """`ErrorInfo.reason` of an end."""
    from google.rpc import error_details_pb2

    info = error_details_pb2.ErrorInfo()
    for detail in ended.error.details:
        if detail.Is(info.DESCRIPTOR):
            detail.Unpack(info)
    return str(info.reason)


async def until(condition: Any) -> None:
    """Wait for a condition that tells nobody when it comes true; the test's time limit is the limit."""
    while not condition():  # noqa: ASYNC110
        await asyncio.sleep(0.001)
