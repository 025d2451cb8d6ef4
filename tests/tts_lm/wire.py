"""A client of tts_lm over real gRPC, and what it heard."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
from voicemesh.stream.v1 import stream_pb2
from voicemesh.tts_lm.v1 import tts_lm_pb2, tts_lm_pb2_grpc

from services.tts_lm.engine import TalkerEngine
from tests.edges import serving

Request = tts_lm_pb2.GenerateRequest
PATIENCE_S = 15


@dataclass
class Spoken:
    """One utterance as it was heard; making one checks order, gaps and the single end."""

    codes: list[tuple[int, ...]] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)
    seed: int = 0
    ended: Any = None

    @property
    def reason(self) -> str:
        return stream_pb2.FinishReason.Name(self.ended.reason).removeprefix("FINISH_REASON_")


class Stream:
    """One `Generate` call."""

    def __init__(self, stub: Any) -> None:
        self._call = stub.Generate()
        self._seq = 0
        self._received = -1

    async def send(self, *requests: tts_lm_pb2.GenerateRequest) -> None:
        for request in requests:
            await self._call.write(request)

    async def read(self) -> Any:
        response = await asyncio.wait_for(self._call.read(), PATIENCE_S)
        assert response is not grpc.aio.EOF, "the stream ended early"
        assert response.seq == self._received + 1, "seq has a gap"
        self._received = response.seq
        return response

    async def silent_for(self, seconds: float) -> bool:
        """Whether nothing comes for so long."""
        reading = asyncio.ensure_future(self._call.read())
        done, _ = await asyncio.wait([reading], timeout=seconds)
        if done:
            return False
        reading.cancel()
        return True

    async def hear(self, epoch: int = 1, utterance: int = 0, *, first: int = 0, react: Any = None) -> Spoken:
        """One utterance to its end; `react` is called with every frame message."""
        spoken = Spoken()
        while spoken.ended is None:
            response = await self.read()
            assert (response.epoch, response.utterance) == (epoch, utterance), "a message of another utterance"
            kind = response.WhichOneof("payload")
            if kind == "started":
                spoken.seed = response.started.seed
            elif kind == "frames":
                self._take(spoken, response.frames, first)
                if react is not None:
                    await react(spoken)
            else:
                spoken.ended = response.ended
        assert spoken.ended.frame_count >= 0
        return spoken

    @staticmethod
    def _take(spoken: Spoken, frames: Any, first: int) -> None:
        assert frames.first_frame_index == first + len(spoken.codes), "frames are not contiguous"
        books = len(frames.codes) // frames.frame_count
        codes = list(frames.codes)
        spoken.codes += [tuple(codes[i : i + books]) for i in range(0, len(codes), books)]
        spoken.sizes.append(frames.frame_count)
        spoken.tokens.append(frames.text_token_count)

    def end(self) -> None:
        self._call.cancel()


class Client:
    """The stub, the engine behind it, and one-utterance conveniences."""

    def __init__(self, stub: Any, engine: TalkerEngine) -> None:
        self.stub, self.engine = stub, engine

    def stream(self) -> Stream:
        return Stream(self.stub)

    async def say(self, text: str | Iterable[Any], **start_fields: Any) -> Spoken:
        """One utterance on a stream of its own. `text` is a string, or deltas; a callable among them is awaited."""
        stream = self.stream()
        await stream.send(start(**start_fields))
        for delta in [text] if isinstance(text, str) else text:
            if callable(delta):
                await delta()
            else:
                await stream.send(words(delta))
        await stream.send(flush())
        resumed = start_fields.get("resume")
        books = self.engine.info().codebook_count
        spoken = await stream.hear(first=len(resumed.codes) // books if resumed else 0)
        stream.end()
        return spoken


@asynccontextmanager
async def client(engine: TalkerEngine) -> AsyncIterator[Client]:
    async with serving("tts_lm", engine) as server, grpc.aio.insecure_channel(server.address) as channel:
        yield Client(tts_lm_pb2_grpc.TtsLmServiceStub(channel), engine)


def start(epoch: int = 1, utterance: int = 0, voice: str = "", seed: int = 7, **fields: Any) -> Request:
    sampling = fields.pop("sampling", None) or tts_lm_pb2.Sampling(seed=seed)
    if "voice_message" in fields:
        fields["voice"] = fields.pop("voice_message")
    if voice:
        fields["voice"] = tts_lm_pb2.Voice(name=voice)
    begin = tts_lm_pb2.GenerateStart(sampling=sampling, **fields)
    return Request(epoch=epoch, utterance=utterance, start=begin)


def words(text: str | Iterable[int], epoch: int = 1, utterance: int = 0) -> Request:
    delta = tts_lm_pb2.TextDelta(text=text) if isinstance(text, str) else tts_lm_pb2.TextDelta(ids={"ids": list(text)})
    return Request(epoch=epoch, utterance=utterance, text=delta)


def flush(epoch: int = 1, utterance: int = 0) -> Request:
    return Request(epoch=epoch, utterance=utterance, flush=stream_pb2.Flush())


def stop(epoch: int = 1, utterance: int = 0) -> Request:
    return Request(epoch=epoch, utterance=utterance, stop=stream_pb2.Stop())


def credit(frames: int, epoch: int = 1, utterance: int = 0) -> Request:
    return Request(epoch=epoch, utterance=utterance, credit=stream_pb2.Credit(frames=frames))


async def eventually(condition: Callable[[], bool]) -> None:
    """Wait until the condition holds, yielding to the loop."""
    async with asyncio.timeout(PATIENCE_S):
        while not condition():  # noqa: ASYNC110 - the engine's own state has no event to wait for
            await asyncio.sleep(0.001)


Pause = Callable[[], Awaitable[None]]
