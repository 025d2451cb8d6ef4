"""The stages as the gateway reaches them: warm channels to every replica, the choice among them, streams that end in a
`MeshError`. The only file here that dials; it knows no order of messages and no utterance."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from itertools import count
from typing import Any, Generic, TypeVar

import grpc
from voicemesh.codec.v1 import codec_pb2, codec_pb2_grpc
from voicemesh.tts_lm.v1 import tts_lm_pb2, tts_lm_pb2_grpc

from common.errors import MeshError, NotReady, Overloaded
from common.status import error_of_call

MAX_QUEUED_REQUESTS = 4096
PROBE_TIMEOUT_S = 0.5
_OPTIONS = (
    ("grpc.max_receive_message_length", 20 * 1024 * 1024),
    ("grpc.max_send_message_length", 20 * 1024 * 1024),
    # A stage that restarts is back within a second; grpc's own patience grows to two minutes.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
    # One connection per channel, not one shared by all of this process: replicas behind one name spread.
    ("grpc.use_local_subchannel_pool", 1),
)
Q = TypeVar("Q")
R = TypeVar("R")


class Replica:
    """One process of a stage."""

    def __init__(self, address: str, stub: Callable[[grpc.aio.Channel], Any]) -> None:
        self.address = address
        self.channel = grpc.aio.insecure_channel(address, options=_OPTIONS)
        self.stub = stub(self.channel)
        self.channel.get_state(try_to_connect=True)


class Replicas:
    """All processes of one stage. `free_slots` asks one of them how many it has."""

    def __init__(
        self,
        stage: str,
        addresses: str,
        stub: Callable[[grpc.aio.Channel], Any],
        free_slots: Callable[[Any], Any],
        connect_timeout_s: float,
    ) -> None:
        self._stage = stage
        self._free_slots = free_slots
        self._connect_timeout_s = connect_timeout_s
        self._turn = count()
        self.all = tuple(Replica(address.strip(), stub) for address in addresses.split(","))

    async def choose(self) -> Replica:
        """The one with most free slots, one after another among equals. `NotReady` when none answers."""
        if len(self.all) == 1:
            await self._connected(self.all[0])
            return self.all[0]
        free = await asyncio.gather(*(self._probe(replica) for replica in self.all))
        if max(free) < 0:
            raise self.down()
        best = [replica for replica, slots in zip(self.all, free, strict=True) if slots == max(free)]
        return best[next(self._turn) % len(best)]

    async def close(self) -> None:
        """Hang up."""
        for replica in self.all:
            await replica.channel.close()

    async def _probe(self, replica: Replica) -> int:
        try:
            response = await self._free_slots(replica.stub)
        except grpc.aio.AioRpcError:
            return -1
        return int(response.free_slot_count)

    async def _connected(self, replica: Replica) -> None:
        if replica.channel.get_state(try_to_connect=True) is grpc.ChannelConnectivity.READY:
            return
        try:
            async with asyncio.timeout(self._connect_timeout_s):
                await replica.channel.channel_ready()
        except TimeoutError:
            raise self.down() from None

    def down(self) -> MeshError:
        addresses = ", ".join(replica.address for replica in self.all)
        return NotReady(f"No {self._stage} answers at {addresses}.", reason="DEPENDENCY_DOWN", stage=self._stage)


class StageStream(Generic[Q, R]):
    """One bidirectional stream to a stage. `send` never waits; `responses` dials, and ends by raising `MeshError`."""

    def __init__(self, replicas: Replicas, method: str) -> None:
        self._replicas = replicas
        self._method = method
        self._requests: asyncio.Queue[Q] = asyncio.Queue()

    def send(self, request: Q) -> None:
        """Queue a request."""
        self._requests.put_nowait(request)

    def check_room(self) -> None:
        """`Overloaded` when more waits to be sent than a stage that reads would leave."""
        if self._requests.qsize() >= MAX_QUEUED_REQUESTS:
            raise Overloaded("A stage does not take what is said to it.", reason="SLOW_READER")

    async def responses(self) -> AsyncGenerator[R, None]:
        """What the stage answers."""
        replica = await self._replicas.choose()
        call = getattr(replica.stub, self._method)(self._outgoing())
        try:
            async for response in call:
                yield response
        except grpc.aio.AioRpcError as error:
            raise error_of_call(error) from None
        finally:
            call.cancel()
        raise NotReady("A stage ended its stream.", reason="DEPENDENCY_DOWN")

    async def _outgoing(self) -> AsyncIterator[Q]:
        while True:
            yield await self._requests.get()


class Stages:
    """What the gateway needs of the mesh."""

    def __init__(self, tts_lm_address: str, codec_address: str, connect_timeout_s: float) -> None:
        self.tts_lm = Replicas(
            "tts_lm",
            tts_lm_address,
            tts_lm_pb2_grpc.TtsLmServiceStub,
            lambda stub: stub.GetModel(tts_lm_pb2.GetModelRequest(), timeout=PROBE_TIMEOUT_S),
            connect_timeout_s,
        )
        self.codec = Replicas(
            "codec",
            codec_address,
            codec_pb2_grpc.CodecServiceStub,
            lambda stub: stub.GetCodec(codec_pb2.GetCodecRequest(), timeout=PROBE_TIMEOUT_S),
            connect_timeout_s,
        )

    def generate(self) -> StageStream[tts_lm_pb2.GenerateRequest, tts_lm_pb2.GenerateResponse]:
        """A new stream to the talker."""
        return StageStream(self.tts_lm, "Generate")

    def decode(self) -> StageStream[codec_pb2.DecodeRequest, codec_pb2.DecodeResponse]:
        """A new stream to the codec."""
        return StageStream(self.codec, "Decode")

    async def voices(self) -> list[tts_lm_pb2.VoiceInfo]:
        """The voices of all talkers, each name once, in the order of the replicas. `NotReady` when none answers."""

        async def ask(replica: Replica) -> list[tts_lm_pb2.VoiceInfo]:
            request = tts_lm_pb2.ListVoicesRequest()
            return list((await replica.stub.ListVoices(request, timeout=2.0, wait_for_ready=True)).voices)

        answers = await asyncio.gather(*(ask(replica) for replica in self.tts_lm.all), return_exceptions=True)
        found: dict[str, tts_lm_pb2.VoiceInfo] = {}
        for answer in answers:
            if isinstance(answer, grpc.aio.AioRpcError):
                continue
            if isinstance(answer, BaseException):
                raise answer
            for voice in answer:
                found.setdefault(voice.name, voice)
        if all(isinstance(answer, BaseException) for answer in answers):
            raise self.tts_lm.down()
        return list(found.values())

    async def close(self) -> None:
        """Hang up everywhere."""
        await self.tts_lm.close()
        await self.codec.close()
