"""The stages as the gateway reaches them: warm channels to every replica, what each has free, streams that end in a
`MeshError`. The only file here that dials; it knows no order of messages and no utterance."""

from __future__ import annotations

import asyncio
import random
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Collection
from itertools import count
from typing import Any, Generic, TypeVar, cast

import grpc
from voicemesh.brain.v1 import brain_pb2, brain_pb2_grpc
from voicemesh.codec.v1 import codec_pb2, codec_pb2_grpc
from voicemesh.tts_lm.v1 import tts_lm_pb2, tts_lm_pb2_grpc

from common.errors import MeshError, NotReady
from common.status import error_of_call
from services.gateway.access.tls import StageTls
from services.gateway.discovery import Directory

PROBE_TIMEOUT_S = 0.5
PROBE_EVERY_S = 1.0
LEAVE_S = 1.0  # a stage that has nothing left to say ends its stream within this, or is hung up on
MAX_HOMES = 10_000
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
    """One process of a stage, and what is known of it: `info` is its last answer to a probe, None when it is down.

    Between probes `free_slots` is the last answer less what this gateway has begun there since.
    """

    def __init__(self, address: str, stub: Callable[[grpc.aio.Channel], Any], tls: StageTls | None = None) -> None:
        self.address = address
        self.channel = _channel(address, tls)
        self.stub = stub(self.channel)
        self.info: Any = None
        self.is_suspect = False  # failed since its last answer
        self._begun = 0
        self._answered_s: float | None = None
        self.streams: set[StageStream[Any, Any]] = set()
        self.channel.get_state(try_to_connect=True)

    @property
    def free_slots(self) -> int:
        return 0 if self.info is None else self.info.free_slot_count - self._begun

    def begin(self) -> None:
        """Something begins there now."""
        self._begun += 1

    def end(self) -> None:
        """Something that began there has ended."""
        self._begun -= 1

    def answered(self, info: Any) -> None:
        """A probe was answered: this counts what runs there, ours included."""
        self.info, self._begun, self.is_suspect = info, 0, False
        self._answered_s = asyncio.get_running_loop().time()

    def failed(self) -> None:
        """It did not answer, or a stream to it broke: others are asked first until it answers again."""
        self.is_suspect = True

    def unanswered(self, stall_timeout_s: float) -> None:
        """A probe was not answered. A process that hangs keeps its connections: its streams are given up for it."""
        self.failed()
        if self._answered_s is None or asyncio.get_running_loop().time() < self._answered_s + stall_timeout_s:
            return
        for stream in tuple(self.streams):
            stream.give_up()


def _channel(address: str, tls: StageTls | None) -> grpc.aio.Channel:
    if tls is None:
        return grpc.aio.insecure_channel(address, options=_OPTIONS)
    credentials = grpc.ssl_channel_credentials(tls.ca, tls.key, tls.certificate)
    named = () if tls.name is None else (("grpc.ssl_target_name_override", tls.name),)
    return grpc.aio.secure_channel(address, credentials, options=(*_OPTIONS, *named))


class Replicas:
    """All processes of one stage, at the addresses that `Directory` finds. `probe` asks one of them what it is and how
    many slots it has free."""

    def __init__(
        self,
        stage: str,
        directory: Directory,
        stub: Callable[[grpc.aio.Channel], Any],
        probe: Callable[[Any], Any],
        stall_timeout_s: float,
        tls: StageTls | None = None,
    ) -> None:
        self.stage = stage
        self._tls = tls
        self._stall_timeout_s = stall_timeout_s
        self._stub = stub
        self._probe = probe
        self._directory = directory
        self._turn = count()
        self._homes: OrderedDict[str, Replica] = OrderedDict()
        self.all = tuple(Replica(address, stub, tls) for address in self._directory.addresses)
        self._leaving: set[Replica] = set()  # nobody begins there any more, but somebody still speaks

    def choose(self, session_id: str, tried: Collection[Replica] = ()) -> Replica | None:
        """The best that was not tried: one that answers, with free slots, where this session was before (what it keeps
        of a voice is warm there), and then the one with most free slots, in turn among equals. None: all were tried."""
        left = [replica for replica in self.all if replica not in tried]
        if not left:
            return None
        if len(left) > 1:
            home, turn = self._homes.get(session_id), next(self._turn) % len(left)
            left = left[turn:] + left[:turn]
            left.sort(key=lambda it: (not it.is_suspect, it.free_slots > 0, it is home, it.free_slots), reverse=True)
        return left[0]

    def settle(self, session_id: str, replica: Replica) -> None:
        """The session is there from now on."""
        self._homes[session_id] = replica
        self._homes.move_to_end(session_id)
        if len(self._homes) > MAX_HOMES:
            self._homes.popitem(last=False)

    def forget(self, session_id: str) -> None:
        """The session may go anywhere."""
        self._homes.pop(session_id, None)

    @property
    def info(self) -> Any:
        """What a replica last said of itself; None before any has answered."""
        return next((replica.info for replica in self.all if replica.info is not None), None)

    @property
    def is_up(self) -> bool:
        """Whether one of them answers."""
        return any(replica.info is not None and not replica.is_suspect for replica in self.all)

    async def look(self) -> None:
        """Find all of them and ask each, once."""
        if self._directory.changes:
            await self._become(await self._directory.refresh())
        await asyncio.gather(*map(self._ask, (*self._leaving, *self.all)))

    async def _become(self, addresses: Collection[str]) -> None:
        """Dial who is new. Who is gone gets nothing new, and is hung up on when it has said what it was saying."""
        known = {replica.address: replica for replica in (*self._leaving, *self.all)}
        self.all = tuple(known.get(address) or Replica(address, self._stub, self._tls) for address in addresses)
        gone = set(known.values()).difference(self.all)
        self._leaving = {replica for replica in gone if replica.streams}
        for replica in gone - self._leaving:
            await replica.channel.close()

    async def watch(self) -> None:
        """Ask all of them every now and then, until cancelled."""
        while True:
            # Many gateways must not ask in step.
            await asyncio.sleep(PROBE_EVERY_S * random.uniform(0.75, 1.25))
            await self.look()

    async def _ask(self, replica: Replica) -> None:
        try:
            replica.answered(await self._probe(replica.stub))
        except grpc.aio.AioRpcError:
            replica.unanswered(self._stall_timeout_s)

    async def close(self) -> None:
        """Hang up."""
        for replica in (*self._leaving, *self.all):
            await replica.channel.close()

    def down(self) -> MeshError:
        addresses = ", ".join(self._directory.entries)
        return NotReady(f"No {self.stage} answers at {addresses}.", reason="DEPENDENCY_DOWN", stage=self.stage)


class StageStream(Generic[Q, R]):
    """One bidirectional stream to a replica. `send` never waits; `receive` raises the `MeshError` that ended it."""

    def __init__(self, replica: Replica, method: str) -> None:
        self.replica = replica
        self._requests: asyncio.Queue[Q | None] = asyncio.Queue()
        self._call = getattr(replica.stub, method)(self._outgoing())
        self._is_given_up = False
        replica.streams.add(self)

    def send(self, request: Q) -> None:
        """Queue a request. How much may wait is bounded by who sends: text by its length, frames by credit."""
        self._requests.put_nowait(request)

    async def receive(self) -> R:
        """The stage's next answer."""
        try:
            response = await self._call.read()
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if not self._is_given_up or (task is not None and task.cancelling()):
                raise
            raise NotReady("A stage does not answer any more.", reason="DEPENDENCY_DOWN") from None
        except grpc.aio.AioRpcError as error:
            self.replica.failed()
            self._say_no_more()
            raise error_of_call(error) from None
        if response is grpc.aio.EOF:
            self.replica.failed()
            self._say_no_more()
            raise NotReady("A stage ended its stream.", reason="DEPENDENCY_DOWN")
        return cast(R, response)

    async def leave(self) -> None:
        """Everything was said on both sides: let the stage end the stream. It matters to nobody whether it does."""
        self._say_no_more()
        try:
            async with asyncio.timeout(LEAVE_S):
                while await self._call.read() is not grpc.aio.EOF:
                    pass
        except (TimeoutError, grpc.aio.AioRpcError):
            pass
        finally:
            self.hang_up()

    def give_up(self) -> None:
        """The replica hangs: `receive` raises."""
        self._is_given_up = True
        self.hang_up()

    def hang_up(self) -> None:
        """Nobody wants the rest: the stage learns it at once."""
        self._call.cancel()
        self._say_no_more()
        self.replica.streams.discard(self)

    def _say_no_more(self) -> None:
        """End our requests: grpc.aio's task that takes them outlives a call that the stage ended, cancelled or not."""
        self._requests.put_nowait(None)

    async def _outgoing(self) -> AsyncIterator[Q]:
        while (request := await self._requests.get()) is not None:
            yield request


class Stages:
    """What the gateway needs of the mesh."""

    def __init__(
        self,
        tts_lm_address: str,
        codec_address: str,
        stall_timeout_s: float = 10.0,
        brain_address: str = "127.0.0.1:50051",
        tls: StageTls | None = None,
    ) -> None:
        self.brain = Replicas(
            "brain",
            Directory(brain_address),
            brain_pb2_grpc.BrainServiceStub,
            lambda stub: stub.GetBrain(brain_pb2.GetBrainRequest(), timeout=PROBE_TIMEOUT_S),
            stall_timeout_s,
            tls,
        )
        self.tts_lm = Replicas(
            "tts_lm",
            Directory(tts_lm_address),
            tts_lm_pb2_grpc.TtsLmServiceStub,
            lambda stub: stub.GetModel(tts_lm_pb2.GetModelRequest(), timeout=PROBE_TIMEOUT_S),
            stall_timeout_s,
            tls,
        )
        self.codec = Replicas(
            "codec",
            Directory(codec_address),
            codec_pb2_grpc.CodecServiceStub,
            lambda stub: stub.GetCodec(codec_pb2.GetCodecRequest(), timeout=PROBE_TIMEOUT_S),
            stall_timeout_s,
            tls,
        )
        self._all = (self.brain, self.tts_lm, self.codec)

    @property
    def brain_hears(self) -> bool:
        """Whether a brain that answers understands sound."""
        return self.brain.info is not None and bool(self.brain.info.hears_audio)

    @property
    def brain_calls_tools(self) -> bool:
        """Whether it has tools called, as far as anybody knows."""
        return self.brain.info is None or bool(self.brain.info.calls_tools)

    def respond(self, replica: Replica) -> StageStream[brain_pb2.RespondRequest, brain_pb2.RespondResponse]:
        """A new stream to a brain."""
        return StageStream(replica, "Respond")

    def generate(self, replica: Replica) -> StageStream[tts_lm_pb2.GenerateRequest, tts_lm_pb2.GenerateResponse]:
        """A new stream to a talker."""
        return StageStream(replica, "Generate")

    def decode(self, replica: Replica) -> StageStream[codec_pb2.DecodeRequest, codec_pb2.DecodeResponse]:
        """A new stream to a codec."""
        return StageStream(replica, "Decode")

    async def voices(self) -> list[tts_lm_pb2.VoiceInfo]:
        """The voices of all talkers, each name once, in the order of the replicas. `NotReady` when none answers."""

        async def ask(replica: Replica) -> list[tts_lm_pb2.VoiceInfo]:
            # While one answers nobody waits for those that do not.
            response = await replica.stub.ListVoices(
                tts_lm_pb2.ListVoicesRequest(), timeout=2.0, wait_for_ready=not self.tts_lm.is_up
            )
            return list(response.voices)

        answers = await asyncio.gather(*map(ask, self.tts_lm.all), return_exceptions=True)
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

    def forget(self, session_id: str) -> None:
        """The session has no home any more."""
        self.brain.forget(session_id)
        self.tts_lm.forget(session_id)
        self.codec.forget(session_id)

    async def look(self) -> None:
        """Ask every replica once, within the time of a probe."""
        await asyncio.gather(*(stage.look() for stage in self._all))

    async def watch(self) -> None:
        """Keep asking, until cancelled."""
        await asyncio.gather(*(stage.watch() for stage in self._all))

    async def close(self) -> None:
        """Hang up everywhere."""
        for stage in self._all:
            await stage.close()
