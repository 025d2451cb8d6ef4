"""What the tests of every backend share: an engine over it, how to kill what is behind it, how to talk to it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile

from services.brain.admission import BrainEngine
from services.brain.types import Ended, Event, TextPiece, Tool, ToolCallRequest, Turn, TurnRequest

CLOCK = Tool("clock", "Tells the time.", {"type": "object", "properties": {"zone": {"type": "string"}}})


@dataclass
class Home:
    """A started engine. `ask` is answered at length (20 pieces or more), `call` has the tool `clock` called."""

    engine: BrainEngine
    ask: str
    call: str
    kill: Callable[[], Awaitable[None]]
    revive: Callable[[], Awaitable[None]]


def begin(engine: BrainEngine, said: str | bytes = "", request: TurnRequest | None = None) -> Turn:
    """A turn, complete."""
    turn = engine.submit(request or TurnRequest())
    if isinstance(said, bytes):
        turn.feed_audio(said)
    elif said:
        turn.feed_text(said)
    turn.finish()
    return turn


async def events_of(turn: Turn) -> list[Event]:
    """All of them."""
    return [event async for event in turn]


async def answer(engine: BrainEngine, said: str | bytes = "", request: TurnRequest | None = None) -> tuple[str, Ended]:
    """What is said to that, tools aside, and how it ended."""
    events = await events_of(begin(engine, said, request))
    assert isinstance(events[-1], Ended)
    return text_of(events), events[-1]


def text_of(events: list[Event]) -> str:
    """The words of an answer."""
    return "".join(event.text for event in events if isinstance(event, TextPiece))


async def until(holds: Callable[[], bool]) -> None:
    """Wait for a condition, not for a time."""
    while not holds():  # noqa: ASYNC110 (what is waited for has no event)
        await asyncio.sleep(0.001)


async def ready(engine: BrainEngine, wanted: bool) -> None:
    """Wait for the engine to be ready, or not to be."""
    async for is_ready in engine.readiness():
        if is_ready is wanted:
            return


def tone(seconds: float, hz: float = 440.0) -> bytes:
    """PCM_S16LE, 16 kHz."""
    samples = 0.3 * np.sin(2 * np.pi * hz * np.arange(int(seconds * 16000)) / 16000)
    return (samples * 32767).astype("<i2").tobytes()


def speech(name: str) -> bytes:
    """A recording of `tests/brain/speech`, as PCM_S16LE at 16 kHz."""
    samples, rate = soundfile.read(Path(__file__).parent / "speech" / f"{name}.flac", dtype="int16")
    assert rate == 16000
    return bytes(np.asarray(samples).astype("<i2").tobytes())


def tool_calls(events: list[Event]) -> list[ToolCallRequest]:
    """The calls among them."""
    return [event for event in events if isinstance(event, ToolCallRequest)]
