"""The seam between a conversation and whatever carries it to a person: WebRTC, WebSocket, gRPC, a LiveKit room.

A transport knows packets and refuses to know turns; a conversation knows turns and refuses to know packets. Plain
values only: times are seconds, sound is 24 kHz mono int16 on the way out and 16 kHz mono int16 on the way in.

    person ──▶ Transport ── hear, type, interrupt, report_… ──▶ Conversation
    person ◀── Transport ◀── play (20 ms, now), tell ────────── Conversation
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray
from voicemesh.brain.v1 import brain_pb2
from voicemesh.tts_lm.v1 import tts_lm_pb2

from common.errors import MeshError
from common.stream import FinishReason
from common.telemetry import Milestone

HEARD_RATE_HZ = 16000  # of `Conversation.hear`
PLAYED_RATE_HZ = 24000  # of `Block.samples`
BLOCK_S = 0.02
BLOCK_SAMPLES = round(PLAYED_RATE_HZ * BLOCK_S)
DEFAULT_CLIENT_BUFFER_S = 0.08
"""What lies between us and an ear that reports nothing."""

Samples = NDArray[np.int16]


# What a session is told.


@dataclass(frozen=True)
class TurnDetection:
    """Who decides that the person's turn is over, in the words of OpenAI's `turn_detection`. None: as configured."""

    mode: Literal["server_vad", "semantic_vad", "none"] = "semantic_vad"
    threshold: float | None = None
    prefix_padding_s: float | None = None
    silence_s: float | None = None
    idle_timeout_s: float | None = None
    create_response: bool = True
    interrupt_response: bool = True
    eagerness: Literal["low", "medium", "high", "auto"] = "auto"


@dataclass(frozen=True)
class SessionSettings:
    """How a conversation is held. Empty strings: as the services are configured."""

    instructions: str = ""
    voice: str = ""
    language: str = ""
    instruct: str = ""
    turn_detection: TurnDetection = TurnDetection()
    speakable_filter: bool = True
    want_transcript: bool = True  # of what the person says aloud
    echo_cancellation: bool | None = None  # of our voice in their microphone; None: not of gRPC, which has no room
    temperature: float | None = None
    max_tokens: int | None = None
    tools: tuple[brain_pb2.Tool, ...] = ()  # that the brain may have the client call
    speech: tts_lm_pb2.GenerateStart | None = None  # everything else of tts_lm's start; voice, language, instruct win


# What a session tells: plain values, in the order in which things happen.


class State(StrEnum):
    """Of the turn machine, as told to the outside."""

    CONNECTING = "connecting"
    LISTENING = "listening"
    USER_SPEAKING = "user_speaking"
    ENDPOINTING = "endpointing"
    THINKING = "thinking"
    SPEAKING = "speaking"
    HOLD = "hold"
    INTERRUPTED = "interrupted"
    RECOVERING = "recovering"
    SUSPENDED = "suspended"
    CLOSING = "closing"


@dataclass(frozen=True, slots=True)
class StateChanged:
    state: State
    turn: int
    epoch: int


@dataclass(frozen=True, slots=True)
class SpeechCandidate:
    """Somebody may have begun to speak (or, not active, did not)."""

    active: bool


@dataclass(frozen=True, slots=True)
class UserSpeechStarted:
    turn: int
    audio_start_s: float  # of the audio heard in this session


@dataclass(frozen=True, slots=True)
class UserSpeechStopped:
    turn: int
    audio_end_s: float


@dataclass(frozen=True, slots=True)
class TurnCommitted:
    """The person's turn is complete; an answer follows."""

    turn: int
    typed: bool


@dataclass(frozen=True, slots=True)
class Transcript:
    """Who said what: `text` is all of it so far. Of an answer it is the brain's own text, not what was spoken of it;
    `heard_character_count` of its characters have been heard."""

    turn: int
    user: bool
    text: str
    final: bool
    heard_character_count: int = 0


@dataclass(frozen=True, slots=True)
class AnswerStarted:
    turn: int
    epoch: int


@dataclass(frozen=True, slots=True)
class AnswerEnded:
    """Exactly one for each `AnswerStarted`."""

    turn: int
    epoch: int
    reason: FinishReason
    heard_sample_offset: int  # at 24 kHz, from the answer's first sample
    heard_text: str
    error: MeshError | None = None


@dataclass(frozen=True, slots=True)
class PlayoutStarted:
    """The first sound of an answer goes out."""

    epoch: int


@dataclass(frozen=True, slots=True)
class PlayoutStopped:
    """Nothing of it goes out any more. `cleared`: it was cut, what the client buffers of it is unwanted too."""

    epoch: int
    cleared: bool


@dataclass(frozen=True, slots=True)
class FalseInterruption:
    """The answer was held for nothing; `resumed`: it goes on with the sample that was next."""

    resumed: bool


@dataclass(frozen=True, slots=True)
class Backchannel:
    """The person said "mhm": no turn of theirs."""


@dataclass(frozen=True, slots=True)
class ToolCalled:
    """The answer goes on once the client has called it and told `Conversation.tool_result`."""

    turn: int
    epoch: int
    call: brain_pb2.ToolCall


@dataclass(frozen=True, slots=True)
class TurnMeasured:
    """The milestones of a turn so far, in seconds since `user_speech_end`; told once the answer sounds and again when
    the client has said when it was heard."""

    turn: int
    milestones: Mapping[Milestone, float]


@dataclass(frozen=True, slots=True)
class Failed:
    """Something went wrong that ends neither an answer nor the session."""

    error: MeshError


@dataclass(frozen=True, slots=True)
class UserAway:
    """Nobody has spoken for long."""


SessionEvent = (
    StateChanged
    | SpeechCandidate
    | UserSpeechStarted
    | UserSpeechStopped
    | TurnCommitted
    | Transcript
    | AnswerStarted
    | AnswerEnded
    | PlayoutStarted
    | PlayoutStopped
    | FalseInterruption
    | Backchannel
    | ToolCalled
    | TurnMeasured
    | Failed
    | UserAway
)


# Sound on its way out.


@dataclass(frozen=True, slots=True)
class Block:
    """20 ms that go out now. Silence between answers has `is_speech=False` and the epoch and offset that come next."""

    samples: Samples = field(repr=False)  # [480] int16, 24 kHz, mono; nobody writes into it
    is_speech: bool
    epoch: int
    first_sample_offset: int  # from the first sample of the epoch


class Transport(Protocol):
    """One way by which a person reaches us."""

    kind: str  # webrtc, websocket, grpc or livekit

    @property
    def ready(self) -> bool:
        """Whether it takes a block now. While it does not (what it was given has not left), the pacer's thread takes
        none from the playout: sound then waits and goes on later; it is neither lost nor sent in a burst."""

    def tell(self, event: SessionEvent) -> None:
        """On the event loop; never blocks, never raises; bounded inside."""

    def play(self, block: Block) -> None:
        """Called by the pacer's thread every 20 ms; must take microseconds."""

    @property
    def client_buffer_s(self) -> float:
        """Estimate of the sound that lies between us and the ear."""

    async def close(self, reason: str) -> None:
        """The conversation is over, or this transport was replaced: hang up. More than once does no harm."""


class Conversation(Protocol):
    """What a transport calls, on the event loop. Nothing here waits but `close`."""

    @property
    def session_id(self) -> str: ...
    @property
    def resume_token(self) -> str: ...
    @property
    def state(self) -> State: ...
    @property
    def epoch(self) -> int: ...
    @property
    def turn(self) -> int: ...

    def hear(self, samples: Samples, arrived_s: float) -> None:
        """What the person's microphone gave: mono 16 kHz, any length; `arrived_s` by the loop's clock, of its end."""

    def type(self, text: str) -> None:
        """A typed turn; silences what is being said. `InvalidRequest` when it is too long."""

    def commit(self) -> None:
        """The spoken turn is over, whatever the detection thinks (with mode `none`: the only way to end one)."""

    def clear(self) -> None:
        """Forget what of the person's turn was heard and not committed."""

    def interrupt(self) -> tuple[int, str]:
        """Silence. Returns how many samples (24 kHz) and which text of the answer had been heard."""

    def say(self, text: str, interruptible: bool) -> int:
        """Speak a text that no brain thought of; returns its epoch."""

    def tool_result(self, call_id: str, content: str, failed: bool) -> None:
        """What a tool answered. `InvalidRequest` when no call of that id waits for it."""

    def report_playback(self, heard_sample_offset: int | None, client_buffer_s: float | None) -> None:
        """From a client with a clock of its own: samples (24 kHz) of the current answer heard, what it buffers."""

    def report_first_audible(self, epoch: int, heard_s: float) -> None:
        """The answer's first sound was heard at `heard_s` by the loop's clock."""

    def report_first_opus(self, epoch: int, encoded_s: float) -> None:
        """The answer's first packet was encoded at `encoded_s` by the loop's clock; not of transports without Opus."""

    def update(self, settings: SessionSettings) -> None:
        """From the next turn on."""

    def suspend(self) -> None:
        """The transport is lost: nothing is spoken; the session waits for `attach` and then closes by itself."""

    def attach(self, transport: Transport) -> None:
        """Another transport takes over; the one before is closed as replaced."""

    async def close(self, reason: str) -> None:
        """The session is over."""


class Sessions(Protocol):
    """All conversations of one process: how a transport comes by one."""

    def open(
        self, transport: Transport, settings: SessionSettings, *, session_id: str = "", resume_token: str = ""
    ) -> Conversation:
        """A new conversation, already attached to `transport`; or, with its token, one that is suspended or whose
        transport is to be replaced. Raises `Overloaded` when there are too many, `NotReady` while draining,
        `UnknownName` for a token of no session here, `InvalidRequest` for an id that is taken."""
