"""What the event loop tells the engine's thread, and what it is told. Plain values; they cross in two queues."""

from __future__ import annotations

from dataclasses import dataclass

from common.errors import MeshError
from common.stream import FinishReason
from services.tts_lm.sequence import Packet, Sequence


@dataclass(frozen=True)
class Begin:
    """A sequence has a slot since `at_s` of the engine's clock."""

    sequence: Sequence
    at_s: float


@dataclass(frozen=True)
class Text:
    """Ids that became final at `at_s` of the engine's clock."""

    sequence: Sequence
    ids: tuple[int, ...]
    at_s: float
    finished: bool = False


@dataclass(frozen=True)
class Credit:
    sequence: Sequence
    frames: int


@dataclass(frozen=True)
class Read:
    """The reader has taken so many frames more."""

    sequence: Sequence
    frames: int


@dataclass(frozen=True)
class Cancel:
    sequence: Sequence


@dataclass(frozen=True)
class Close:
    pass


Command = Begin | Text | Credit | Read | Cancel | Close


@dataclass(frozen=True)
class Frames:
    """A packet of one utterance; `produced_at_s` on the engine's clock, `produced_time_s` since the epoch."""

    sequence: Sequence
    packet: Packet
    produced_at_s: float
    produced_time_s: float


@dataclass(frozen=True)
class Done:
    """The utterance is over and its pages are free."""

    sequence: Sequence
    reason: FinishReason
    error: MeshError | None = None
