"""The rules of a stream: order, gaps, repeats, epochs. Pure: values in, values out.

`StreamGuard` is told the marks of every request and every end, and says what each request means. It refuses to know
messages, engines, time and transport; `common.duplex` does what it says. `docs/stream.md` has the rules for callers.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, IntEnum, auto
from typing import NamedTuple

from common.errors import InvalidRequest, OutOfOrder, SequenceGap

MAX_SESSION_ID_CHARACTERS = 256  # every response repeats it


class FinishReason(IntEnum):
    """Why an utterance or an answer ended; the numbers are those of `voicemesh.stream.v1.FinishReason`."""

    UNSPECIFIED = 0
    COMPLETED = 1
    CANCELLED = 2
    LENGTH = 3
    RUNAWAY = 4
    TEXT_TIMEOUT = 5
    FAILED = 6


class Kind(Enum):
    """What a request does, whatever its stage calls it."""

    START = auto()
    INPUT = auto()  # text, frames, audio: only between `start` and `flush`
    SUPPLEMENT = auto()  # credit, a tool's result: until the utterance has ended
    FLUSH = auto()  # `finish`, in the brain
    STOP = auto()
    RESET = auto()


class Drop(Enum):
    """Why a request was dropped and counted."""

    REPEATED = "repeated"
    STALE = "stale"


class Place(NamedTuple):
    """Which utterance of a stream."""

    epoch: int
    utterance: int


@dataclass(frozen=True, slots=True)
class Marks:
    """What the guard needs to know of a request. `kind=None`: no payload was set."""

    kind: Kind | None
    session_id: str | None = None
    epoch: int | None = None
    seq: int | None = None
    utterance: int | None = None


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a request means: first cancel `cancelled`, oldest first; then, unless `drop`, do `kind` at `place`."""

    kind: Kind
    place: Place
    cancelled: tuple[Place, ...] = ()
    drop: Drop | None = None


class StreamGuard:
    """One stream's memory of its requests. Raises what ends the stream; every other oddity is dropped and counted.

    `session_id` is given to a caller who names none. With `one_per_epoch` (the brain: one turn an epoch) a `start` must
    raise the epoch.
    """

    def __init__(self, session_id: str, *, one_per_epoch: bool = False) -> None:
        self.session_id = session_id
        self.epoch = -1
        self.drops = {Drop.REPEATED: 0, Drop.STALE: 0}
        self._one_per_epoch = one_per_epoch
        self._session_known = False
        self._last_seq = -1
        self._must_start = True  # no `start` yet, or none since `reset`
        self._stopped = True  # the current epoch takes nothing more
        self._first = self._last = -1  # utterances of the current epoch
        self._flushed = False  # by the caller, the last one
        self._unfinished: dict[Place, None] = {}  # oldest first

    def accept(self, marks: Marks) -> Verdict:
        """Judge the next request. Raises `InvalidRequest`, `SequenceGap` or `OutOfOrder`: the stream is over then."""
        kind = self._well_formed(marks)
        if not self._in_sequence(marks.seq):
            return self._dropped(kind, marks, Drop.REPEATED)
        epoch = self._epoch_of(kind, marks.epoch)
        if epoch < self.epoch:
            return self._dropped(kind, marks, Drop.STALE)
        if kind is Kind.START:
            return self._start(epoch, marks)
        if kind is Kind.STOP or kind is Kind.RESET:
            return self._halt(kind, epoch)
        if epoch > self.epoch or self._must_start:
            raise OutOfOrder(f"{kind.name.lower()} came before any start of its epoch")
        if self._stopped:
            return self._dropped(kind, marks, Drop.STALE)
        return self._continue(kind, marks)

    def ended(self, place: Place) -> None:
        """An utterance ended by itself; what still arrives for it is dropped from now on."""
        self._unfinished.pop(place, None)

    def half_close(self) -> tuple[Place, ...]:
        """The caller sends no more: which utterances can never be completed, because no `flush` came."""
        last = Place(self.epoch, self._last)
        if self._flushed or last not in self._unfinished:
            return ()
        self.ended(last)
        return (last,)

    @property
    def unfinished(self) -> tuple[Place, ...]:
        """Utterances that were started and have not ended, oldest first."""
        return tuple(self._unfinished)

    def _well_formed(self, marks: Marks) -> Kind:
        if marks.kind is None:
            raise InvalidRequest("a request holds exactly one payload; this one holds none")
        for name in ("epoch", "seq", "utterance"):
            value = getattr(marks, name)
            if value is not None and value < 0:
                raise InvalidRequest(f"{name} counts from 0", field=name, value=str(value))
        if marks.session_id and len(marks.session_id) > MAX_SESSION_ID_CHARACTERS:
            raise InvalidRequest(f"session_id holds at most {MAX_SESSION_ID_CHARACTERS} characters")
        if marks.session_id and not self._session_known:
            self.session_id = marks.session_id
        self._session_known = True
        if marks.session_id and marks.session_id != self.session_id:
            raise InvalidRequest("a stream belongs to one session; this request names another")
        return marks.kind

    def _in_sequence(self, seq: int | None) -> bool:
        expected = self._last_seq + 1
        if seq is not None and seq > expected:
            raise SequenceGap(f"expected seq {expected}, got {seq}", expected=str(expected), got=str(seq))
        if seq is not None and seq < expected:
            return False
        self._last_seq = expected
        return True

    def _epoch_of(self, kind: Kind, epoch: int | None) -> int:
        if epoch is not None:
            return epoch
        return self.epoch + 1 if kind is Kind.START else self.epoch

    def _dropped(self, kind: Kind, marks: Marks, why: Drop) -> Verdict:
        self.drops[why] += 1
        epoch = self.epoch if marks.epoch is None else marks.epoch
        return Verdict(kind, Place(epoch, self._last if marks.utterance is None else marks.utterance), drop=why)

    def _start(self, epoch: int, marks: Marks) -> Verdict:
        if epoch > self.epoch:
            cancelled = self._cancel_all()
            self._first = self._last = marks.utterance or 0
        elif self._stopped:
            return self._dropped(Kind.START, marks, Drop.STALE)
        else:
            cancelled = ()
            self._last = self._following(marks.utterance)
        self.epoch, self._stopped, self._must_start, self._flushed = epoch, False, False, False
        place = Place(epoch, self._last)
        self._unfinished[place] = None
        return Verdict(Kind.START, place, cancelled)

    def _following(self, utterance: int | None) -> int:
        """The number of a further utterance of the running epoch."""
        if self._one_per_epoch:
            raise OutOfOrder("an epoch holds one turn; a further start must raise the epoch")
        if not self._flushed and Place(self.epoch, self._last) in self._unfinished:
            raise OutOfOrder("start came before the flush of the utterance before it")
        if utterance not in (None, self._last + 1):
            raise OutOfOrder(f"utterance {self._last + 1} comes next, not {utterance}")
        return self._last + 1

    def _halt(self, kind: Kind, epoch: int) -> Verdict:
        cancelled = self._cancel_all()
        self.epoch, self._stopped = epoch, True
        self._must_start = self._must_start or kind is Kind.RESET
        return Verdict(kind, Place(max(epoch, 0), max(self._last, 0)), cancelled)

    def _continue(self, kind: Kind, marks: Marks) -> Verdict:
        utterance = self._last if marks.utterance is None else marks.utterance
        place = Place(self.epoch, utterance)
        if kind is Kind.SUPPLEMENT:
            if not self._first <= utterance <= self._last:
                raise OutOfOrder(f"utterance {utterance} was never started")
        elif utterance != self._last:
            raise OutOfOrder(f"utterance {self._last} is the open one, not {utterance}")
        elif self._flushed:
            raise OutOfOrder(f"{kind.name.lower()} came after the flush of its utterance")
        if kind is Kind.FLUSH:
            self._flushed = True
        if place not in self._unfinished:
            return self._dropped(kind, marks, Drop.STALE)
        return Verdict(kind, place)

    def _cancel_all(self) -> tuple[Place, ...]:
        cancelled = tuple(self._unfinished)
        self._unfinished.clear()
        return cancelled
