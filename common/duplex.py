"""The edge of a bidirectional stream, the same for every stage: reads, guards, dispatches, answers in order.

A `Stage` says what the messages of one method mean; `Duplex` runs one call of it. Utterances of a stream are spoken one
after another, later ones wait with what was said to them. Nothing here knows a model, gRPC or what a payload holds.

Who waits for whom: a reader that is too slow holds up `_write`, which then asks the engine for no more events; the
engine's own bounded queue fills and its sequence sits out steps. Requests are read all the while: `stop` gets through.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from typing import Any, Generic, Protocol
from uuid import uuid4

from common.errors import MeshError, NotReady, OutOfTime, Overloaded
from common.observer import NOBODY, Observer
from common.stage import End, Q, R, Stage, U, ended_message
from common.stream import Drop, FinishReason, Kind, Place, StreamGuard
from common.telemetry import Telemetry, Work

MAX_ANSWERS_DUE = 64
"""Utterances and resets of one stream that wait to be answered, even those refused; beyond it the stream ends."""


@dataclass(frozen=True)
class Limits:
    """How much a stream may keep waiting, and for how long it may keep others waiting."""

    pending_utterances: int = 8
    backlog_messages: int = 4096
    backlog_bytes: int = 4 * 1024 * 1024
    idle_s: float = 300.0
    silent_utterance_s: float = 900.0
    slow_reader_s: float = 30.0


class Writer(Protocol):
    """What the edge needs of a gRPC context."""

    async def send_initial_metadata(self, metadata: tuple[()], /) -> None: ...
    async def write(self, message: Any, /) -> None: ...


class Drain(Protocol):
    """Whether the service is shutting down; `wait` returns when it begins to. An `asyncio.Event` is one."""

    def is_set(self) -> bool: ...
    async def wait(self) -> Any: ...


def draining_error() -> MeshError:
    """What is said to whoever would begin something new while the service shuts down."""
    return NotReady("This service is shutting down; another replica takes new utterances.", reason="DRAINING")


@dataclass(frozen=True)
class Edge:
    """What all streams of one service share. `drain` is the server's event of that name."""

    limits: Limits
    telemetry: Telemetry
    observer: Observer = NOBODY
    drain: Drain | None = None

    async def serve(self, stage: Stage[Q, R, U], requests: AsyncIterator[Q], writer: Writer) -> None:
        """Serve one call. Raises (in an exception group) what ends the stream with a status.

        The headers go first and alone: grpc.aio forgets that they are on their way when a first write is cancelled,
        sends them again with the status, and fails: the caller would never be told anything.
        """
        await writer.send_initial_metadata(())
        await Duplex(stage, writer, self).run(requests)


@dataclass(eq=False, slots=True)
class _Turn(Generic[Q, U]):
    """One utterance at the edge, from its `start` to its `ended`. Until it is opened, all that was said to it waits."""

    place: Place
    work: Work
    accepted_s: float
    backlog: list[tuple[Kind, Q]] = field(default_factory=list)  # its `start` first
    backlog_bytes: int = 0
    utterance: U | None = None
    first_s: float | None = None  # when its first frame, sample or token left
    cancelled_s: float | None = None
    fault: MeshError | None = None

    @property
    def is_over(self) -> bool:
        return self.cancelled_s is not None or self.fault is not None

    def cancel(self, now_s: float) -> None:
        self.cancelled_s = now_s
        self._stop()

    def fail(self, error: MeshError) -> None:
        self.fault = error
        self._stop()

    def _stop(self) -> None:
        self.backlog.clear()
        self.backlog_bytes = 0
        if self.utterance is not None:
            self.utterance.cancel()


class Duplex(Generic[Q, R, U]):
    """One call of one method. `run` returns when the caller has half-closed and everything is answered."""

    def __init__(self, stage: Stage[Q, R, U], writer: Writer, edge: Edge) -> None:
        self._stage = stage
        self._writer = writer
        self._limits = edge.limits
        self._telemetry = edge.telemetry
        self._observer = edge.observer
        self._drain = edge.drain
        self._guard = StreamGuard(uuid4().hex, one_per_epoch=stage.one_per_epoch)
        self._due: deque[_Turn[Q, U] | Place] = deque()  # in the order of their answers; a bare Place: `reset_done`
        self._turns: dict[Place, _Turn[Q, U]] = {}
        self._news = asyncio.Event()
        self._half_closed = False
        self._seq = 0
        self._time = asyncio.get_running_loop().time
        self._moved_s = self._time()  # when a message last went either way
        self._writing_since_s: float | None = None

    async def run(self, requests: AsyncIterator[Q]) -> None:
        """See `Edge.serve`."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._read(requests))
                beside = [group.create_task(work) for work in (self._watch(), self._watch_drain(), self._stage.run())]
                await self._write()
                for task in beside:
                    task.cancel()
        finally:
            for turn in self._turns.values():
                turn.cancel(self._time())
                turn.work.end(FinishReason.CANCELLED.name)

    # Reading: every request is judged and handed on at once.

    async def _read(self, requests: AsyncIterator[Q]) -> None:
        async for request in requests:
            self._moved_s = self._time()
            self._take(request)
        for place in self._guard.half_close():
            self._turns[place].cancel(self._time())
        self._half_closed = True
        self._news.set()

    def _take(self, request: Q) -> None:
        verdict = self._guard.accept(self._stage.marks(request))
        cut = [self._turns[place] for place in verdict.cancelled]
        for turn in cut:
            turn.cancel(self._time())
        if verdict.drop is not None:
            self._count(verdict.drop)
        elif verdict.kind is Kind.START:
            work = self._begin(request, verdict.place)
            for turn in cut:
                turn.work.cut_by(work.trace_parent())
        elif verdict.kind is Kind.RESET:
            self._stage.forget()
            self._answer_later(verdict.place)
        elif verdict.kind is not Kind.STOP:
            self._hand_on(self._turns[verdict.place], verdict.kind, request)

    def _count(self, drop: Drop) -> None:
        if drop is Drop.STALE:
            self._observer.stale()
        else:
            self._observer.repeated()

    def _begin(self, request: Q, place: Place) -> Work:
        self._stage.session_id = self._guard.session_id
        trace = self._stage.trace(request)
        work = self._telemetry.utterance(
            self._stage.span_name,
            (trace.traceparent, trace.tracestate),
            session_id=self._guard.session_id,
            epoch=place.epoch,
            utterance=place.utterance,
        )
        turn = self._turns[place] = _Turn[Q, U](place, work, self._time())
        waiting = sum(isinstance(due, _Turn) and not due.is_over for due in self._due)
        if self._drain is not None and self._drain.is_set():
            self._fail(turn, draining_error())
        elif waiting > self._limits.pending_utterances:
            sentence = f"{self._limits.pending_utterances} utterances of this stream are waiting already."
            self._fail(turn, Overloaded(sentence, reason="SLOW_READER"))
        else:
            self._hand_on(turn, Kind.START, request)
            if not self._due:
                self._open(turn)
        self._answer_later(turn)
        return work

    def _answer_later(self, due: _Turn[Q, U] | Place) -> None:
        if len(self._due) >= MAX_ANSWERS_DUE:
            raise Overloaded(f"{MAX_ANSWERS_DUE} answers of this stream were not read yet.", reason="SLOW_READER")
        self._due.append(due)
        self._news.set()

    def _open(self, turn: _Turn[Q, U]) -> None:
        """Its turn has come: to the engine with it and with everything that was said to it meanwhile."""
        if turn.is_over:
            return
        (_, start), *rest = turn.backlog
        turn.backlog, turn.backlog_bytes = [], 0
        try:
            turn.utterance = self._stage.submit(start, turn.work)
        except MeshError as error:
            self._fail(turn, error)
        self._tell_slots()
        for kind, request in rest:
            self._hand_on(turn, kind, request)

    def _hand_on(self, turn: _Turn[Q, U], kind: Kind, request: Q) -> None:
        if turn.is_over:
            return
        try:
            if turn.utterance is None:
                self._keep(turn, kind, request)
            elif kind is Kind.FLUSH:
                self._stage.flush(turn.utterance)
            else:
                self._stage.feed(turn.utterance, request)
        except MeshError as error:
            self._fail(turn, error)

    def _keep(self, turn: _Turn[Q, U], kind: Kind, request: Any) -> None:
        kept_bytes = sum(other.backlog_bytes for other in self._turns.values()) + request.ByteSize()
        is_alone = kind is Kind.START and not self._due  # it is opened at once
        if (not is_alone and kept_bytes > self._limits.backlog_bytes) or len(
            turn.backlog
        ) > self._limits.backlog_messages:
            raise Overloaded("Too much was said to utterances whose turn has not come.", reason="SLOW_READER")
        turn.backlog_bytes += request.ByteSize()
        turn.backlog.append((kind, request))

    def _fail(self, turn: _Turn[Q, U], error: MeshError) -> None:
        turn.fail(error)
        self._guard.ended(turn.place)

    # Writing: one utterance after another, each to its end.

    async def _write(self) -> None:
        while True:
            while self._due:
                await self._answer(self._due[0])
                self._due.popleft()
            if self._half_closed:
                return
            if self._drain is not None and self._drain.is_set():
                raise draining_error()
            self._news.clear()
            await self._news.wait()

    async def _answer(self, due: _Turn[Q, U] | Place) -> None:
        if not isinstance(due, _Turn):
            await self._send(due, self._stage.reset_done())
            return
        if due.utterance is None:
            self._open(due)
        if due.utterance is None:
            await self._finish(due, End(FinishReason.FAILED), None)
            return
        events = aiter(due.utterance)
        try:
            async for event in events:
                end = self._stage.end_of(event)
                if end is not None:
                    await self._finish(due, end, event)
                    return
                if not due.is_over:
                    await self._tell(due, event)
        finally:
            if hasattr(events, "aclose"):
                await events.aclose()
        raise AssertionError("an engine's events end with how it ended")

    async def _tell(self, turn: _Turn[Q, U], event: Any) -> None:
        if turn.first_s is None and self._stage.is_product(event):
            turn.first_s = self._time()
            if self._stage.first_milestone is not None:
                turn.work.milestone(self._stage.first_milestone)
        await self._send(turn.place, self._stage.response(event))

    async def _finish(self, turn: _Turn[Q, U], end: End, event: Any | None) -> None:
        """The one `ended`: the caller's word counts before the edge's, and the edge's before the engine's."""
        if turn.cancelled_s is not None:
            end = replace(end, reason=FinishReason.CANCELLED, error=None)
        elif turn.fault is not None:
            end = replace(end, reason=FinishReason.FAILED, error=turn.fault)
        self._guard.ended(turn.place)
        del self._turns[turn.place]
        turn.work.end(end.reason.name, None if end.error is None else end.error.reason)
        time_to_first_s = None if turn.first_s is None else turn.first_s - turn.accepted_s
        self._measure(turn, end, time_to_first_s)
        await self._send(turn.place, self._stage.ended(ended_message(end, time_to_first_s), event))

    def _measure(self, turn: _Turn[Q, U], end: End, time_to_first_s: float | None) -> None:
        if turn.cancelled_s is not None and turn.utterance is not None:
            self._observer.cancelled(self._time() - turn.cancelled_s)
        audio_s = self._stage.audio_s(end)
        if audio_s is not None:
            name, compute_s = end.reason.name, end.compute_s
            self._observer.ended(name, time_to_first_s=time_to_first_s, compute_s=compute_s, audio_s=audio_s)
        self._tell_slots()

    def _tell_slots(self) -> None:
        slots = self._stage.slots()
        if slots is not None:
            self._observer.slots(*slots)

    async def _send(self, place: Place, response: Any) -> None:
        response.session_id = self._guard.session_id
        response.epoch = place.epoch
        response.seq = self._seq
        if self._stage.numbers_utterances:
            response.utterance = place.utterance
        self._seq += 1
        self._writing_since_s = self._time()
        await self._writer.write(response)
        self._writing_since_s = None
        self._moved_s = self._time()

    # Watching: nobody may hold a stream for ever.

    def _patience(self) -> tuple[float, MeshError]:
        """When it runs out as things are, and what is said then."""
        limits = self._limits
        if self._writing_since_s is not None:
            error: MeshError = Overloaded(f"No response was read for {limits.slow_reader_s:g} s.", reason="SLOW_READER")
            return self._writing_since_s + limits.slow_reader_s, error
        idle_s = limits.silent_utterance_s if self._due else limits.idle_s
        return self._moved_s + idle_s, OutOfTime(f"Nothing was said for {idle_s:g} s.")

    async def _watch(self) -> None:
        shortest_s = min(self._limits.idle_s, self._limits.silent_utterance_s, self._limits.slow_reader_s)
        while True:
            until_s, error = self._patience()
            if until_s <= self._time():
                raise error
            # What begins to count while this sleeps cannot run out before the shortest limit has passed.
            await asyncio.sleep(min(until_s - self._time(), shortest_s))

    async def _watch_drain(self) -> None:
        if self._drain is not None:
            await self._drain.wait()
            self._news.set()
