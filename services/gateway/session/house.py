"""What all conversations of one gateway share, and the numbers they are held by."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from concurrent.futures import Executor
from dataclasses import dataclass, field
from typing import Any, Protocol

from common.telemetry import Telemetry
from services.gateway.clients import Stages
from services.gateway.hearing.listener import Listener
from services.gateway.hearing.turn_model import TurnModel
from services.gateway.media.echo import EchoCanceller
from services.gateway.pipeline import SpeechLine
from services.gateway.search import Patience
from services.gateway.session.ports import SessionEvent
from services.gateway.speakable import Normalisation
from services.gateway.turns.settings import TurnSettings

Watch = Callable[[str, str, SessionEvent], None]
"""Told what every session tells: its id, its transport's kind, the event."""
Spawn = Callable[[Coroutine[Any, Any, None]], "asyncio.Task[None]"]


class Clock(Protocol):
    """What calls a session every 20 ms: `media.pacer.Pacer`, or a test."""

    def add(self, tick: Callable[[int, float], None]) -> int: ...
    def remove(self, key: int) -> None: ...


def unwatched(session_id: str, transport: str, event: SessionEvent) -> None:
    """Nobody wants to know."""


@dataclass(frozen=True)
class Numbers:
    """What a conversation may take. Seconds unless the name says otherwise."""

    patience: Patience = field(default_factory=Patience)
    max_text_characters: int = 32768  # of a turn, of a tool's answer: no brain takes more
    history_audio_bytes: int = 4_000_000
    max_sessions: int = 32
    normalise: Normalisation = "off"
    overlap_by_words: bool = True  # speech over an answer is judged by its words, where a brain hears
    drain_s: float = 60.0


@dataclass(frozen=True)
class House:
    """See the module. `new_line` makes one conversation's way through the speech stages."""

    stages: Stages
    new_line: Callable[[], SpeechLine]
    clock: Clock
    telemetry: Telemetry
    settings: TurnSettings
    numbers: Numbers
    turn_model: TurnModel
    judges: Executor | None = None  # where the turn model runs; None: on the loop, as it takes no time
    new_listener: Callable[[], Listener] = Listener
    new_echo: Callable[[], EchoCanceller | None] = EchoCanceller.if_installed
    watch: Watch = unwatched
