"""Conversations for tests: real sessions over real gRPC stages (fakes below), in this process, and a client of them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from common.telemetry import Telemetry
from common.voice_store import VoiceStore
from services.gateway.clients import Stages
from services.gateway.hearing.listener import Listener
from services.gateway.pipeline import SpeechLine
from services.gateway.search import Patience
from services.gateway.session import ports
from services.gateway.session.dialogue import Dialogue
from services.gateway.session.house import Numbers
from services.gateway.session.keeping import Conversations, Manner
from services.gateway.turns.settings import TurnSettings
from services.gateway.utterance import Terms
from tests.edges import serving
from tests.fakes import Script, ScriptedBrain, ScriptedTurn, echo

TERMS = Terms(lead_frames=8, patience=Patience(1.0, 5.0))


class Client:
    """A transport that keeps what it is told and what it hears."""

    def __init__(self, kind: str = "grpc") -> None:
        self.kind = kind
        self.events: list[Any] = []
        self.blocks: list[ports.Block] = []
        self.closed: str | None = None
        self.client_buffer_s = 0.02
        self.ready = True
        self._news = asyncio.Event()
        self._loop = asyncio.get_running_loop()

    def tell(self, event: Any) -> None:
        self.events.append(event)
        self._news.set()

    def play(self, block: ports.Block) -> None:
        if block.is_speech:
            self.blocks.append(block)
            self._loop.call_soon_threadsafe(self._news.set)

    async def close(self, reason: str) -> None:
        self.closed = reason
        self._news.set()

    async def until(self, condition: Callable[[], Any]) -> Any:
        """What the condition gives, once it gives something; it is asked after every event and block."""
        while not (found := condition()):
            self._news.clear()
            await self._news.wait()
        return found

    async def told(self, kind: type, **fields: Any) -> Any:
        """The first event of that kind with those fields, already told or not."""
        return await self.until(lambda: next(iter(self.all(kind, **fields)), None))

    def all(self, kind: type, **fields: Any) -> list[Any]:
        """Those told so far."""
        fitting = [event for event in self.events if isinstance(event, kind)]
        return [event for event in fitting if all(getattr(event, name) == value for name, value in fields.items())]

    async def heard(self, seconds: float, epoch: int | None = None) -> None:
        """Return when so much speech (of that epoch) was heard."""
        await self.until(lambda: self.samples(epoch).size >= seconds * ports.PLAYED_RATE_HZ)

    def samples(self, epoch: int | None = None) -> np.ndarray[Any, Any]:
        """Speech heard so far."""
        pieces = [block.samples for block in tuple(self.blocks) if epoch in (None, block.epoch)]
        return np.concatenate(pieces) if pieces else np.zeros(0, np.int16)


class HearingTurn(ScriptedTurn):
    """A turn that takes sound: what it is told to say depends on how much of it was loud."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.pcm = b""

    def feed_audio(self, payload: bytes) -> None:
        self.pcm += payload

    def finish(self) -> None:
        if self.pcm:
            self._words += f"{loud_s(self.pcm):.1f} s"
        super().finish()


class HearingBrain(ScriptedBrain):
    """Keeps its turns and what they were told; a spoken turn counts as the words "0.5 s": how long it was loud."""

    def __init__(self, script: Script = echo, step_s: float = 0.0) -> None:
        super().__init__(script, step_s=step_s)
        self.requests: list[Any] = []
        self.turns: list[HearingTurn] = []

    def submit(self, request: Any) -> HearingTurn:
        self.requests.append(request)
        self.turns.append(HearingTurn(request, self._script, self.pool, self._step_s))
        return self.turns[-1]

    def info(self) -> Any:
        return replace(super().info(), hears_audio=True)


def loud_s(pcm: bytes) -> float:
    """For how long there was a voice in it, give or take 10 ms."""
    samples = np.abs(np.frombuffer(pcm, "<i2").astype(np.int32))
    pieces = samples[: samples.size // 160 * 160].reshape(-1, 160)
    return int((pieces.max(axis=1, initial=0) > 1000).sum()) / 100


def voice(seconds: float) -> np.ndarray[Any, Any]:
    """A tone that counts as somebody's voice, 16 kHz."""
    return np.round(8000 * np.sin(np.arange(round(seconds * 16000)) * 0.2)).astype(np.int16)


def silence(seconds: float) -> np.ndarray[Any, Any]:
    return np.zeros(round(seconds * 16000), np.int16)


def loudness() -> Listener:
    """A listener for which all that is loud is voice, without a model's opinion."""
    return Listener(voice=lambda window: 1.0 if np.abs(window).max() > 0.05 else 0.0)


@dataclass
class Home:
    """A gateway's conversations and what they run on."""

    conversations: Conversations
    stages: Stages

    def open(self, client: Client, settings: ports.SessionSettings | None = None, **how: str) -> Dialogue:
        return self.conversations.registry.open(client, settings or ports.SessionSettings(), **how)


@asynccontextmanager
async def home(
    brain: Any = None,
    talker: Any = None,
    codec: Any = None,
    settings: TurnSettings | None = None,
    numbers: Numbers | None = None,
    telemetry: Telemetry | None = None,
    drain: Any = None,
    new_listener: Any = Listener,
) -> AsyncIterator[Home]:
    async with AsyncExitStack() as stack:
        servers = [
            await stack.enter_async_context(serving(name, engine))
            for name, engine in (("brain", brain), ("tts_lm", talker), ("codec", codec))
        ]
        stages = Stages(servers[1].address, servers[2].address, brain_address=servers[0].address)
        stack.push_async_callback(stages.close)
        await stages.look()
        numbers = numbers or Numbers(patience=Patience(1.0, 5.0))
        manner = Manner(settings or TurnSettings(), numbers, new_listener=new_listener)
        conversations = Conversations(manner, telemetry or Telemetry.off(), drain)
        conversations.start(stages, lambda: SpeechLine(stages, TERMS, VoiceStore("/nonexistent")))
        stack.push_async_callback(conversations.close)
        yield Home(conversations, stages)
