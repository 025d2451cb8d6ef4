"""Conversations for tests: real sessions over real gRPC stages (fakes below), in this process, and a client of them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from common.telemetry import Telemetry
from common.voice_store import VoiceStore
from services.gateway.clients import Stages
from services.gateway.pipeline import SpeechLine
from services.gateway.search import Patience
from services.gateway.session import ports
from services.gateway.session.dialogue import Dialogue
from services.gateway.session.house import Numbers
from services.gateway.session.keeping import Conversations, Manner
from services.gateway.turns.settings import TurnSettings
from services.gateway.utterance import Terms
from tests.edges import serving

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
        manner = Manner(settings or TurnSettings(), numbers)
        conversations = Conversations(manner, telemetry or Telemetry.off(), drain)
        conversations.start(stages, lambda: SpeechLine(stages, TERMS, VoiceStore("/nonexistent")))
        stack.push_async_callback(conversations.close)
        yield Home(conversations, stages)
