"""What conversations need for as long as the gateway lives: the pacer, the registry, the turn model's thread."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path

from common.duplex import Drain
from common.telemetry import Telemetry
from services.gateway.clients import Stages
from services.gateway.hearing.listener import Listener
from services.gateway.hearing.smart_turn import SmartTurnModel
from services.gateway.hearing.turn_model import LexicalTurnModel, TurnModel
from services.gateway.media.pacer import Pacer
from services.gateway.pipeline import SpeechLine
from services.gateway.session.house import House, Numbers, Watch, unwatched
from services.gateway.session.registry import Registry
from services.gateway.turns.settings import TurnSettings

LOOK_EVERY_S = 0.25


@dataclass(frozen=True)
class Manner:
    """How conversations are held here."""

    settings: TurnSettings = field(default_factory=TurnSettings)
    numbers: Numbers = field(default_factory=Numbers)
    turn_model: Path | None = None  # a smart-turn ONNX file; None: by the words alone
    echo_cancellation: bool = True
    new_listener: Callable[[], Listener] = Listener


class Conversations:
    """Open it with `start` on the loop, close it last. `registry` is what transports ask for sessions."""

    def __init__(self, manner: Manner, telemetry: Telemetry, drain: Drain | None = None) -> None:
        self._manner = manner
        self._telemetry = telemetry
        self._drain_event = drain
        self._judges: ThreadPoolExecutor | None = None
        self._draining: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop
        self._looking: asyncio.TimerHandle | None = None
        self.pacer = Pacer(tell=self._paced)
        self.registry: Registry

    def start(self, stages: Stages, new_line: Callable[[], SpeechLine], watch: Watch = unwatched) -> Registry:
        """Conversations may be opened from now on, until the drain begins; `watch` is told what they tell."""
        manner = self._manner
        model: TurnModel = LexicalTurnModel()
        if manner.turn_model is not None:
            model = SmartTurnModel(manner.turn_model)
            self._judges = ThreadPoolExecutor(1, "turn-model")
        house = House(
            stages, new_line, self.pacer, self._telemetry, manner.settings, manner.numbers, model, self._judges
        )
        if not manner.echo_cancellation:
            house = replace(house, new_echo=lambda: None)
        house = replace(house, watch=watch, new_listener=manner.new_listener)
        self._loop = asyncio.get_running_loop()
        self._look_at_loop(self._loop.time())
        self.registry = Registry(house, self._telemetry.conversations())
        if self._drain_event is not None:
            # ends in `close`, which raises what it raised
            self._draining = asyncio.create_task(self._drain(self._drain_event))
        return self.registry

    def _look_at_loop(self, due_s: float) -> None:
        """Whether the loop runs late, every now and then, until closed."""
        now_s = self._loop.time()
        self._telemetry.conversations().loop_blocked(max(0.0, now_s - due_s))
        self._looking = self._loop.call_at(now_s + LOOK_EVERY_S, self._look_at_loop, now_s + LOOK_EVERY_S)

    def _paced(self, late_s: float, skipped: int) -> None:
        """In the pacer's thread."""
        self._telemetry.conversations().block_sent(late_s)
        if skipped:
            self._telemetry.conversations().blocks_skipped(skipped)

    async def _drain(self, drain: Drain) -> None:
        await drain.wait()
        await self.registry.drain()

    async def close(self) -> None:
        """All conversations end now."""
        if self._looking is not None:
            self._looking.cancel()
        if self._draining is not None:
            self._draining.cancel()
            await asyncio.wait([self._draining])
        if hasattr(self, "registry"):
            await self.registry.close()
        self.pacer.close()
        if self._judges is not None:
            self._judges.shutdown()
