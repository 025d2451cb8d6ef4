"""What goes into and comes out of the brain's engine: plain values, importable without torch, protobuf or grpc.

`engine.py` re-exports every name here; the edge, the fakes and the tests are written against these and nothing else.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal, Protocol

from common.errors import MeshError
from common.stream import FinishReason

Encoding = Literal["pcm_s16le", "pcm_f32le", "mulaw"]


class Role(StrEnum):
    """Who said something; the values are what chat templates and OpenAI's API call them."""

    USER = "user"
    ASSISTANT = "assistant"
    TOOL = "tool"
    SYSTEM = "system"


@dataclass(frozen=True)
class AudioFormat:
    """The shape of samples in `feed_audio` and in the history; channels are interleaved."""

    encoding: Encoding = "pcm_s16le"
    sample_rate_hz: int = 16000
    channel_count: int = 1


@dataclass(frozen=True)
class ToolCall:
    """A call that the brain made; `arguments` follow the tool's schema."""

    id: str
    name: str
    arguments: Mapping[str, object]


@dataclass(frozen=True)
class Message:
    """One message of the history. Of an interrupted answer, `text` is what was heard and `interrupted` is true.

    `audio` is in the request's `audio_format`; `tool_call_id` names the call that a TOOL message answers.
    """

    role: Role
    text: str = ""
    audio: bytes = b""
    interrupted: bool = False
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str = ""


@dataclass(frozen=True)
class Tool:
    """A function that the brain may call; `parameters` is a JSON schema."""

    name: str
    description: str = ""
    parameters: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True)
class BrainSampling:
    """Randomness and limits of an answer; `None` means the model's own value. Temperature 0 is greedy."""

    temperature: float | None = None
    top_p: float | None = None
    max_tokens: int | None = None
    seed: int | None = None
    stop: tuple[str, ...] = ()


@dataclass(frozen=True)
class TurnRequest:
    """What a turn builds on, as in `RespondStart`. Empty `instructions` mean the configured ones.

    `deadline_s` is what is left of the caller's deadline, in seconds from now; `None` when it has none.
    """

    instructions: str = ""
    history: tuple[Message, ...] = ()
    sampling: BrainSampling = field(default_factory=BrainSampling)
    tools: tuple[Tool, ...] = ()
    audio_format: AudioFormat = field(default_factory=AudioFormat)
    partial_answer: str = ""
    want_transcript: bool = False
    speculative: bool = False
    deadline_s: float | None = None


@dataclass(frozen=True)
class Started:
    """The turn has a slot. The edge adds the replica's name."""

    model_id: str
    tokenizer_fingerprint: str


@dataclass(frozen=True)
class Transcript:
    """What the person said, all of it so far; a final one does not change any more."""

    text: str
    final: bool


@dataclass(frozen=True)
class TextPiece:
    """More of the answer, cut anywhere but never within a character; `ids` are the same tokens where they are known.

    `produced_time_s` is seconds since the Unix epoch.
    """

    text: str
    ids: tuple[int, ...]
    produced_time_s: float


@dataclass(frozen=True)
class ToolCallRequest:
    """The brain wants a tool to be called; the answer goes on once each call has its `tool_result`."""

    call: ToolCall


@dataclass(frozen=True)
class Ended:
    """The one last event. `time_to_first_s` counts from `finish` to the first piece and is `None` without any piece.

    `prompt_token_count` and `cached_token_count` are those of the last prompt of the turn.
    """

    reason: FinishReason
    error: MeshError | None = None
    prompt_token_count: int = 0
    cached_token_count: int = 0
    completion_token_count: int = 0
    time_to_first_s: float | None = None
    compute_s: float = 0.0


Event = Started | Transcript | TextPiece | ToolCallRequest | Ended


@dataclass(frozen=True)
class BrainInfo:
    """Everything GetBrain tells."""

    model_id: str
    backend: str
    tokenizer_fingerprint: str
    hears_audio: bool
    calls_tools: bool
    slot_count: int
    free_slot_count: int


class Turn(Protocol):
    """One turn in the engine. Every method is called on the event loop and returns at once."""

    def feed_text(self, text: str) -> None:
        """Add typed words. Raises `OutOfOrder` after `finish`, `InvalidRequest` beyond the turn's limit."""
        ...

    def feed_audio(self, payload: bytes) -> None:
        """Add spoken words in the request's format, any number of bytes; whole samples are taken as they complete.

        Raises `OutOfOrder` after `finish`, `InvalidRequest` beyond the limit or where audio is not understood."""
        ...

    def tool_result(self, call_id: str, content: str, failed: bool = False) -> None:
        """Answer a `ToolCallRequest`. Raises `OutOfOrder` for a call that is not open."""
        ...

    def finish(self) -> None:
        """The person's turn is complete: answer. A second finish does nothing."""
        ...

    def cancel(self) -> None:
        """Nobody wants the rest: no piece is delivered after this; `Ended` (CANCELLED) still comes."""
        ...

    def __aiter__(self) -> AsyncIterator[Event]:
        """`Started`, then the rest in order, then exactly one `Ended`. A fault before the slot gives `Ended` alone."""
        ...


class Engine(Protocol):
    """The brain behind the edge; fakes implement the same."""

    async def start(self) -> None:
        """Load, warm up; returns when ready to serve. Raises `MeshError` with a sentence when it cannot."""
        ...

    def submit(self, request: TurnRequest) -> Turn:
        """Admit one turn, without blocking; refuses by raising `MeshError` (`Overloaded`, `NotReady`, …)."""
        ...

    async def close(self) -> None:
        """Stop; turns still running end CANCELLED."""
        ...

    def info(self) -> BrainInfo:
        """What GetBrain answers."""
        ...

    def readiness(self) -> AsyncIterator[bool]:
        """Whether turns are taken: the present state at once, then every change (a backend died, it came back).

        Ends when the engine is closed."""
        ...
