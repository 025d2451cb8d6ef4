"""The engine's own thread: take commands, plan, run, publish frames. It owns the device and every running sequence.

It meets the event loop in two queues only: commands come in, events go out once per step. Knows no asyncio, no gRPC
and no tensors.
"""

from __future__ import annotations

import queue
import time
from collections.abc import Callable
from collections.abc import Sequence as Items
from dataclasses import dataclass

from common.errors import Broken, MeshError, Overloaded
from common.observer import NOBODY, Observer
from common.stream import FinishReason
from services.tts_lm.pages import PageAllocator
from services.tts_lm.runner_protocol import Runner
from services.tts_lm.scheduler import StepPlan, plan_step
from services.tts_lm.sequence import Packet, Sequence


@dataclass(frozen=True)
class Begin:
    sequence: Sequence


@dataclass(frozen=True)
class Text:
    sequence: Sequence
    ids: tuple[int, ...]
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
    """A packet of one utterance; `produced_at_s` on the performance counter, `produced_time_s` since the epoch."""

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


Publish = Callable[[Items[Frames | Done]], None]


class Loop:
    """Runs sequences on a runner until `Close`; `run` is the body of the thread."""

    def __init__(self, runner: Runner, publish: Publish, observer: Observer = NOBODY) -> None:
        self.commands: queue.SimpleQueue[Command] = queue.SimpleQueue()
        self._runner, self._publish, self._observer = runner, publish, observer
        self._allocator = PageAllocator(runner.page_count, runner.page_size)
        self._live: dict[int, Sequence] = {}  # by slot, in order of arrival
        self._events: list[Frames | Done] = []
        self._closing = False

    @property
    def free_page_count(self) -> int:
        return self._allocator.free_count

    def run(self) -> None:
        """Until `Close`. A failure of the device ends every utterance with its error, and is raised."""
        try:
            while not self._closing:
                self.turn()
        except Exception as error:
            told = error if isinstance(error, MeshError) else Broken(f"the speech model failed: {error}")
            for sequence in list(self._live.values()):
                self._finish(sequence, FinishReason.FAILED, told)
            self._flush_events()
            raise

    def turn(self) -> None:
        """One turn: commands, then a step if any sequence can take one, else wait for a command or a time limit."""
        plan = self._plan()
        # Whoever ended here may have made room for others: only a turn that changed nothing may wait.
        wait_s = 0.0 if plan.sequences or self._events else self._patience()
        self._flush_events()
        self._take_commands(wait_s)
        plan = self._plan()
        if plan.sequences:
            self._step(plan)
        self._flush_events()

    def _take_commands(self, wait_s: float | None) -> None:
        """All commands that are there; when `wait_s` is not 0, first wait for one (None: for ever)."""
        try:
            self._obey(self.commands.get(block=wait_s != 0.0, timeout=wait_s))
            while True:
                self._obey(self.commands.get_nowait())
        except queue.Empty:
            pass

    def _obey(self, command: Command) -> None:
        match command:
            case Begin(sequence):
                self._live[sequence.slot] = sequence
                sequence.starved_since_s = time.perf_counter()
            case Close():
                self._closing = True
                for sequence in list(self._live.values()):
                    self._finish(sequence, FinishReason.CANCELLED)
            case _ if self._live.get(command.sequence.slot) is not command.sequence:
                pass  # it has ended; whoever holds the slot now is somebody else
            case Text(sequence, ids, finished):
                sequence.script.feed(ids)
                if finished:
                    sequence.script.finish()
            case Credit(sequence, frames):
                sequence.credit = (sequence.credit or 0) + frames
            case Read(sequence, frames):
                sequence.read_count += frames
            case Cancel(sequence):
                self._finish(sequence, FinishReason.CANCELLED)

    def _plan(self) -> StepPlan:
        """Whoever has text, credit and room; ends those that have nothing to say, waited too long or found no room."""
        now = time.perf_counter()
        ready: list[Sequence] = []
        roomless: list[Sequence] = []
        for sequence in list(self._live.values()):
            if sequence.is_empty():
                sequence.end = sequence.end or FinishReason.COMPLETED
            if sequence.end is None and self._starves(sequence, now):
                sequence.end = FinishReason.TEXT_TIMEOUT
            if sequence.end is not None:
                self._finish(sequence, sequence.end)
            elif not sequence.lacks_text() and not sequence.lacks_credit():
                (ready if self._make_room(sequence) else roomless).append(sequence)
        if roomless and not ready:
            # Nobody can go on, so nobody will give pages back: the latest to come gives way.
            self._finish(roomless[-1], FinishReason.FAILED, Overloaded("the memory for speech in progress is used up"))
        return plan_step(ready)

    @staticmethod
    def _starves(sequence: Sequence, now: float) -> bool:
        """Whether text has been late for too long; keeps the time since when it has been."""
        if not sequence.lacks_text():
            sequence.starved_since_s = None
            return False
        if sequence.starved_since_s is None:
            sequence.starved_since_s = now
        limit = sequence.terms.text_timeout_s
        return limit is not None and now - sequence.starved_since_s >= limit

    def _patience(self) -> float | None:
        """Until the first time limit of those that wait for text."""
        limits = [
            s.starved_since_s + s.terms.text_timeout_s
            for s in self._live.values()
            if s.terms.text_timeout_s is not None and s.starved_since_s is not None
        ]
        return max(0.001, min(limits) - time.perf_counter()) if limits else None

    def _make_room(self, sequence: Sequence) -> bool:
        return self._allocator.grow(sequence.pages, sequence.position + sequence.next_row_count())

    def _step(self, plan: StepPlan) -> None:
        began = time.perf_counter()
        rows = [sequence.next_row_count() for sequence in plan.sequences]
        codes = self._runner.execute(plan)
        produced_at, produced_time = time.perf_counter(), time.time()
        for sequence, frame, count in zip(plan.sequences, codes, rows, strict=True):
            sequence.compute_s += produced_at - began
            sequence.advance(count)
            sequence.sampled(frame)
            pausing = sequence.end is None and (sequence.lacks_text() or sequence.lacks_credit())
            packet = sequence.take_packet(pausing=pausing)
            if packet is not None:
                self._events.append(Frames(sequence, packet, produced_at, produced_time))
            if sequence.end is not None:
                self._finish(sequence, sequence.end)
        self._observer.step(produced_at - began, len(plan.sequences))

    def _finish(self, sequence: Sequence, reason: FinishReason, error: MeshError | None = None) -> None:
        sequence.end = reason
        del self._live[sequence.slot]
        self._allocator.release(sequence.pages)
        self._events.append(Done(sequence, reason, error))

    def _flush_events(self) -> None:
        if self._events:
            events, self._events = self._events, []
            self._publish(events)
