"""A caller of `Converse` for tests: says what it is told to, keeps what comes, and checks what always holds."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import grpc
from voicemesh.gateway.v1 import gateway_pb2, gateway_pb2_grpc
from voicemesh.stream.v1 import stream_pb2

from common.stream import FinishReason

Stub: Any = gateway_pb2_grpc.ConversationServiceStub


class Talker:
    """One stream. Every response is checked for its marks; sound must join, and none may follow its epoch's end."""

    def __init__(self, stub: Any, call: Any) -> None:
        self.stub = stub
        self.call = call
        self.started: Any = None
        self.session_id = ""
        self.events: list[Any] = []
        self.audio: dict[int, list[Any]] = {}
        self.ended: dict[int, Any] = {}
        self.transcripts: list[Any] = []
        self.calls: list[Any] = []
        self._seq = 0
        self._writing = asyncio.Lock()

    async def start(self, **start: Any) -> None:
        marks = {name: start.pop(name) for name in ("session_id", "seq") if name in start}
        await self.call.write(gateway_pb2.ConverseRequest(**marks, start=gateway_pb2.ConverseStart(**start)))
        await self.until(lambda: self.started)

    async def send(self, **payload: Any) -> None:
        async with self._writing:  # grpc.aio takes one write at a time
            await self.call.write(gateway_pb2.ConverseRequest(**payload))

    async def type(self, text: str) -> None:
        await self.send(text=text)

    async def interrupt(self, epoch: int | None = None) -> None:
        await self.send(interrupt=stream_pb2.Stop(), epoch=epoch)

    async def next(self) -> Any:
        """The next response; None when the stream has ended well."""
        response = await self.call.read()
        if response is grpc.aio.EOF:
            return None
        assert response.seq == self._seq, "a response is missing or doubled"
        self._seq += 1
        self.session_id = self.session_id or response.session_id
        assert response.session_id == self.session_id
        payload = response.WhichOneof("payload")
        assert (payload == "started") == (response.seq == 0)
        if payload == "started":
            self.started = response.started
        elif payload == "audio":
            self._hear(response)
        elif payload == "transcript":
            self.transcripts.append(response.transcript)
        elif payload == "tool_call":
            self.calls.append(response.tool_call)
        elif payload == "ended":
            assert response.epoch not in self.ended, "an answer ended twice"
            self.ended[response.epoch] = response.ended
        else:
            self.events.append(response.event)
        return response

    def _hear(self, response: Any) -> None:
        assert response.epoch not in self.ended, "sound of an epoch that is over"
        packets = self.audio.setdefault(response.epoch, [])
        expected = packets[-1].first_sample_offset + packets[-1].sample_count if packets else 0
        assert response.audio.first_sample_offset == expected, "samples are missing or doubled"
        packets.append(response.audio)

    async def until(self, condition: Callable[[], Any]) -> Any:
        """Read until the condition gives something."""
        while not (found := condition()):
            assert await self.next() is not None, "the stream ended"
        return found

    async def answered(self, count: int = 1) -> Any:
        """How the latest of so many answers ended."""
        await self.until(lambda: len(self.ended) >= count)
        return self.ended[max(self.ended)]

    async def heard(self, seconds: float, rate_hz: int = 24000) -> int:
        """Return the epoch of which so much was heard."""

        def epoch() -> int:
            long = [e for e in self.audio if self.sample_count(e) >= seconds * rate_hz and e not in self.ended]
            return long[-1] if long else 0

        return int(await self.until(epoch))

    async def told(self, kind: str, **fields: Any) -> Any:
        """The first event of that type with those fields."""

        def found() -> Any:
            fitting = [event for event in self.events if event.type == kind]
            return next((e for e in fitting if all(getattr(e, name) == value for name, value in fields.items())), None)

        return await self.until(found)

    async def to_end(self) -> None:
        """Read until the stream ends."""
        while await self.next() is not None:
            pass

    def sample_count(self, epoch: int) -> int:
        return sum(packet.sample_count for packet in self.audio.get(epoch, ()))

    def payload(self, epoch: int) -> bytes:
        return b"".join(packet.payload for packet in self.audio.get(epoch, ()))

    def text(self, user: bool = False) -> str:
        """The last final transcript of that side."""
        return str(next((t.text for t in reversed(self.transcripts) if t.final and t.user is user), ""))

    def reason(self, epoch: int) -> FinishReason:
        return FinishReason(self.ended[epoch].reason)


@asynccontextmanager
async def talking(address: str, **start: Any) -> AsyncIterator[Talker]:
    """A conversation at that address, started."""
    async with grpc.aio.insecure_channel(address) as channel:
        stub = Stub(channel)
        talker = Talker(stub, stub.Converse())
        await talker.start(**start)
        yield talker
        talker.call.cancel()
