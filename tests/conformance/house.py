"""A service under test and a caller of it: a real server, a real channel, and streams whose history is kept."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any

import grpc

from common.errors import MeshError
from common.serving import Server
from common.slots import SlotPool
from common.status import error_of_call
from common.stream import Drop, Kind, Marks, Place, StreamGuard
from tests.conformance.dialects import DIALECTS, Dialect
from tests.edges import gateway, serving
from tests.fakes import ScriptedBrain, ToneCodec, ToneTtsLm
from tests.guarantees import Heard, History

WAIT_S = 60.0


@dataclass
class House:
    """One service with a channel to it. `pools` are the slots of every engine in it."""

    dialect: Dialect
    server: Server
    channel: grpc.aio.Channel
    pools: tuple[SlotPool, ...]

    def stream(self) -> Stream:
        """A new stream."""
        stub = self.dialect.stub(self.channel)
        return Stream(self.dialect, getattr(stub, self.dialect.method)())

    @property
    def slots_in_use(self) -> int:
        return sum(pool.in_use_count for pool in self.pools)

    async def empty(self) -> None:
        """Wait until no slot is in use any more."""
        await until(lambda: self.slots_in_use == 0)


@asynccontextmanager
async def house(service: str, step_s: float = 0.0, slot_count: int = 64, **settings: Any) -> AsyncIterator[House]:
    """That service with fakes for engines."""
    options = {"step_s": step_s, "slot_count": slot_count}
    async with AsyncExitStack() as stack:
        engines: tuple[Any, ...]
        if service == "gateway":
            engines = (ToneTtsLm(**options), ToneCodec(**options))
            server = await stack.enter_async_context(gateway(*engines, **settings))
        else:
            engines = ({"tts_lm": ToneTtsLm, "codec": ToneCodec, "brain": ScriptedBrain}[service](**options),)
            server = await stack.enter_async_context(serving(service, engines[0], **settings))
        limits = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]
        channel = await stack.enter_async_context(grpc.aio.insecure_channel(server.address, options=limits))
        yield House(DIALECTS[service], server, channel, tuple(engine.pool for engine in engines))


class Stream:
    """One stream as its caller sees it. A second guard, on this side, says what the rules make of every request."""

    def __init__(self, dialect: Dialect, call: Any) -> None:
        self.history = History()
        self.call = call
        self.fault: MeshError | None = None
        self.inputs: dict[Place, int] = {}
        self._dialect = dialect
        self._guard = StreamGuard("caller", one_per_epoch=not dialect.has_utterances and not dialect.has_reset)

    async def say(self, kind: Kind, **marks: Any) -> None:
        """Send a request with these marks; inputs count on by themselves."""
        await self.send(self._dialect.say(kind, self._note(kind, marks), **marks))

    async def say_all(self, kinds: Iterable[Kind]) -> None:
        """Send one after another, without marks."""
        for kind in kinds:
            await self.say(kind)

    async def send(self, request: Any) -> None:
        """Send any request; of no avail when the stream has ended, and its reader learns why."""
        with suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
            await self.call.write(request)

    async def half_close(self) -> None:
        """No more requests."""
        with suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
            await self.call.done_writing()

    async def hear(self) -> Heard | None:
        """The next response; None when the stream has ended, with its status in the history."""
        try:
            async with asyncio.timeout(WAIT_S):
                response = await self.call.read()
        except grpc.aio.AioRpcError as error:
            self.fault = error_of_call(error)
            self.history.status = error.code().name
            return None
        if response is grpc.aio.EOF:
            self.history.status = (await self.call.code()).name
            return None
        self.history.heard.append(self._dialect.hear(response))
        return self.history.heard[-1]

    async def hear_until(self, kind: str) -> Heard:
        """Skip to the next response of that kind."""
        while (heard := await self.hear()) is not None:
            if heard.kind == kind:
                return heard
        raise AssertionError(f"the stream ended {self.history.status} before any {kind}: {self.fault}")

    async def finish(self) -> str:
        """Half-close, hear the rest, and return the status."""
        await self.half_close()
        return await self.listen()

    async def listen(self) -> str:
        """Hear the rest and return the status."""
        while await self.hear() is not None:
            pass
        assert self.history.status is not None
        return self.history.status

    def product(self, number: int = -1) -> Any:
        """What the utterances heard so far said: that one of them, put together."""
        utterance = self.history.utterances()[number]
        return self._dialect.joined([heard.payload for heard in utterance if heard.kind == "product"])

    def _note(self, kind: Kind, marks: dict[str, Any]) -> int:
        """Keep for the guarantees what the rules make of it; returns the index of an input in its utterance."""
        utterance = marks.get("utterance") if self._dialect.has_utterances else None
        try:
            verdict = self._guard.accept(Marks(kind, None, marks.get("epoch"), marks.get("seq"), utterance))
        except MeshError:
            return 0
        if verdict.drop is Drop.REPEATED or verdict.drop is Drop.STALE:
            return 0
        place = verdict.place
        if kind is Kind.START:
            self.history.begun.append(place)
            self.inputs[place] = 0
        elif kind is Kind.FLUSH:
            self.history.flushed.add(place)
        elif kind is Kind.RESET:
            self.history.resets += 1
        elif kind is Kind.INPUT:
            self.inputs[place] += 1
            return self.inputs[place] - 1
        return 0


async def until(holds: Callable[[], bool]) -> None:
    """Wait for a condition that nobody announces."""
    async with asyncio.timeout(WAIT_S):
        while not holds():  # noqa: ASYNC110
            await asyncio.sleep(0.002)
