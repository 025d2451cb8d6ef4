"""What one method of one stage means: the part of the edge of a stream that differs between stages.

Knows protobuf's shared words (`Ended`, the marks) and refuses to know gRPC, models and any one stage's payloads.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, Protocol, TypeVar

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from voicemesh.stream.v1 import stream_pb2

from common.errors import MeshError
from common.status import status_of
from common.stream import FinishReason, Kind, Marks
from common.telemetry import Milestone, SpanName, Work


class Utterance(Protocol):
    """What an edge needs of any engine's utterance: the stage does the rest."""

    def cancel(self) -> None:
        """Nobody wants the rest; the events still end with how it ended."""

    def __aiter__(self) -> AsyncIterator[Any]: ...


@dataclass(frozen=True, slots=True)
class End:
    """How an utterance ended, whatever the stage: what every `ended` is made of."""

    reason: FinishReason
    error: MeshError | None = None
    text_token_count: int = 0
    frame_count: int = 0
    sample_count: int = 0
    compute_s: float = 0.0


Q = TypeVar("Q")
R = TypeVar("R")
U = TypeVar("U", bound=Utterance)


class Stage(ABC, Generic[Q, R, U]):
    """The messages of one call: requests Q, responses R, and the engine's utterances U.

    Every method but `run` returns at once. `MeshError` from `submit`, `feed` and `flush` is a fault of that utterance.
    """

    kinds: ClassVar[Mapping[str, Kind]]
    """What each field of the request's `payload` does."""
    span_name: ClassVar[SpanName]
    first_milestone: ClassVar[Milestone | None] = None
    one_per_epoch: ClassVar[bool] = False
    numbers_utterances: ClassVar[bool] = True
    session_id: str = ""
    """Whose stream; known when the first utterance begins."""

    def marks(self, request: Q) -> Marks:
        """The marks of a request, None for what is absent."""
        message: Any = request
        has = message.HasField
        payload = message.WhichOneof("payload")
        return Marks(
            None if payload is None else self.kinds[payload],
            message.session_id if has("session_id") else None,
            message.epoch if has("epoch") else None,
            message.seq if has("seq") else None,
            message.utterance if self.numbers_utterances and has("utterance") else None,
        )

    @abstractmethod
    def trace(self, request: Q) -> stream_pb2.TraceContext:
        """The trace context that a `start` brought."""

    @abstractmethod
    def submit(self, request: Q, work: Work) -> U:
        """Hand a `start` to the engine; `work` is its span."""

    @abstractmethod
    def feed(self, utterance: U, request: Q) -> None:
        """Hand on what an INPUT or a SUPPLEMENT holds."""

    @abstractmethod
    def flush(self, utterance: U) -> None:
        """The input is complete."""

    @abstractmethod
    def end_of(self, event: Any) -> End | None:
        """How it ended, when this event says so."""

    @abstractmethod
    def is_product(self, event: Any) -> bool:
        """Whether this event carries frames, samples or text."""

    @abstractmethod
    def response(self, event: Any) -> R:
        """Any event but the end, without marks."""

    @abstractmethod
    def ended(self, ended: stream_pb2.Ended, event: Any | None) -> R:
        """The end, without marks; `event` is the engine's own, when there was one."""

    def audio_s(self, end: End) -> float | None:
        """What it sounds for, in seconds, 0 without sound; None where the engine itself tells its ends and slots."""
        return 0.0

    def slots(self) -> tuple[int, int] | None:
        """Slots in use and slots there are; None where there are none or the engine tells."""
        return None

    def reset_done(self) -> R:
        """The answer to `reset`; only stages that have one."""
        raise NotImplementedError

    def forget(self) -> None:
        """Drop what is kept from one utterance to the next."""

    async def run(self) -> None:
        """What has to go on beside the stream: cancelled when it ends, and ends it by raising."""


def ended_message(end: End, time_to_first_s: float | None) -> stream_pb2.Ended:
    """The last word of an utterance on the wire. `time_to_first_s` counts from `start` accepted."""
    message = stream_pb2.Ended(
        reason=end.reason.value,  # type: ignore[arg-type] # protobuf's stubs want their own enum
        text_token_count=end.text_token_count,
        frame_count=end.frame_count,
        sample_count=end.sample_count,
        compute_time=duration(end.compute_s),
    )
    if end.error is not None:
        message.error.CopyFrom(status_of(end.error))
    if time_to_first_s is not None:
        message.time_to_first.CopyFrom(duration(time_to_first_s))
    return message


def replica() -> str:
    """The name of this process, as `started` and telemetry's service.instance.id tell it."""
    return f"{os.uname().nodename}-{os.getpid()}"


def duration(seconds: float) -> Duration:
    """Seconds as protobuf writes them."""
    whole, nanos = divmod(round(seconds * 1_000_000_000), 1_000_000_000)
    return Duration(seconds=whole, nanos=nanos)


def timestamp(unix_s: float) -> Timestamp:
    """Unix time as protobuf writes it, to the microsecond: a double holds no more."""
    whole, micros = divmod(round(unix_s * 1_000_000), 1_000_000)
    return Timestamp(seconds=whole, nanos=micros * 1000)
