"""The one small interface behind which every model stands: what the engine asks of a backend, as plain values.

A backend knows its library and nothing of slots, limits, tool loops or protobuf. For each turn the engine opens one
`Exchange`, gives it the person's samples as they come, and asks for one answer at a time: after a tool call, for the
next one with the results appended. What a backend yields is `Delta`s; what it raises is `MeshError`.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from common.stream import FinishReason
from services.brain.prompt import Conversation
from services.brain.types import BrainSampling, ToolCall

Samples = NDArray[np.float32]
"""One channel in [-1, 1] at `SAMPLE_RATE_HZ`."""

NORMAL, SPECULATIVE, TRANSCRIPT = 0, 1, 2
"""Priorities: a lower number is computed first."""


@dataclass(frozen=True)
class Piece:
    """More text; `ids` decode to exactly `text`, or are empty where they are not known."""

    text: str
    ids: tuple[int, ...]
    produced_time_s: float


@dataclass(frozen=True)
class Call:
    """A complete tool call. `error` says why the arguments could not be read; then the model is told, nobody else."""

    call: ToolCall
    error: str = ""


@dataclass(frozen=True)
class Usage:
    """Tokens of the prompt, and how many of them the prefix cache had."""

    prompt_token_count: int
    cached_token_count: int


@dataclass(frozen=True)
class Finish:
    """The last delta: COMPLETED or LENGTH, and how many tokens were made, those of tool calls included."""

    reason: FinishReason
    completion_token_count: int


Delta = Piece | Call | Usage | Finish


@dataclass(frozen=True)
class BackendInfo:
    """What a started backend is."""

    model_id: str
    backend: str
    tokenizer_fingerprint: str
    hears_audio: bool
    calls_tools: bool


@dataclass(frozen=True)
class Opening:
    """What is known when a turn begins: everything but the person's words. `on_words` takes interim transcripts."""

    conversation: Conversation
    priority: int = NORMAL
    on_words: Callable[[str], None] | None = None


class Exchange(Protocol):
    """One turn in a backend. `hear` and `close` return at once; a closed or cancelled generator stops its model."""

    def hear(self, samples: Samples) -> None:
        """Take spoken words while the person still speaks."""
        ...

    def answer(self, conversation: Conversation, sampling: BrainSampling) -> AsyncGenerator[Delta, None]:
        """Answer `conversation`, which now ends with the person's turn or with tools' results; `Finish` comes last."""
        ...

    async def transcript(self, conversation: Conversation) -> str:
        """What the person said in the turn that `conversation` ends with, at low priority; "" for nothing."""
        ...

    def close(self) -> None:
        """The turn is over, however it ended: stop whatever still runs for it."""
        ...


class Backend(Protocol):
    """A model, wherever it runs."""

    async def start(self) -> None:
        """Load; raises `MeshError` with a sentence when it cannot."""
        ...

    def info(self) -> BackendInfo:
        """What it is; constant once started."""
        ...

    def open(self, opening: Opening) -> Exchange:
        """Begin a turn: what precedes the person's words may be prepared already."""
        ...

    async def check(self) -> None:
        """Return when an answer could be made now; raise `NotReady` when not. May mend what it can on the way."""
        ...

    async def close(self) -> None:
        """Free everything."""
        ...
