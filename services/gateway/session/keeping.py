"""What conversations need for as long as the gateway lives: the pacer, the registry, the turn model's thread."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from common.duplex import Drain
from common.telemetry import Telemetry
from services.gateway.clients import Stages
from services.gateway.hearing.smart_turn import SmartTurnModel
from services.gateway.hearing.turn_model import LexicalTurnModel, TurnModel
from services.gateway.media.pacer import Pacer
from services.gateway.pipeline import SpeechLine
from services.gateway.session.house import House, Numbers
from services.gateway.session.registry import Registry
from services.gateway.turns.settings import TurnSettings


class Conversations:
    """Open it with `start` on the loop, close it last. `registry` is what transports ask for sessions."""

    def __init__(
        self,
        telemetry: Telemetry,
        settings: TurnSettings,
        numbers: Numbers,
        turn_model: Path | None = None,
        echo_cancellation: bool = True,
    ) -> None:
        self._telemetry = telemetry
        self._settings = settings
        self._numbers = numbers
        self._turn_model_file = turn_model
        self._echo_cancellation = echo_cancellation
        self._judges: ThreadPoolExecutor | None = None
        self._draining: asyncio.Task[None] | None = None
        self.pacer = Pacer()
        self.registry: Registry

    def start(self, stages: Stages, new_line: Callable[[], SpeechLine], drain: Drain | None) -> None:
        """Conversations may be opened from now on, until `drain` begins."""
        model: TurnModel = LexicalTurnModel()
        if self._turn_model_file is not None:
            model = SmartTurnModel(self._turn_model_file)
            self._judges = ThreadPoolExecutor(1, "turn-model")
        house = House(stages, new_line, self.pacer, self._telemetry, self._settings, self._numbers, model, self._judges)
        if not self._echo_cancellation:
            house = replace(house, new_echo=lambda: None)
        self.registry = Registry(house, self._telemetry.conversations())
        if drain is not None:
            self._draining = asyncio.create_task(self._drain(drain))  # ends in `close`, which raises what it raised

    async def _drain(self, drain: Drain) -> None:
        await drain.wait()
        await self.registry.drain()

    async def close(self) -> None:
        """All conversations end now."""
        if self._draining is not None:
            self._draining.cancel()
            await asyncio.wait([self._draining])
        if hasattr(self, "registry"):
            await self.registry.close()
        self.pacer.close()
        if self._judges is not None:
            self._judges.shutdown()
