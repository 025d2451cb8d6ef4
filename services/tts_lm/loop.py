"""The engine's own thread: take commands, plan, launch, publish, collect. It owns the device and all running sequences.

It meets the event loop in two queues only: commands come in, events go out once per step. Knows no asyncio, no gRPC
and no tensors, and reads time from the clock it is given: `bench/simulate.py` runs it in virtual time.
"""

from __future__ import annotations

import queue
import time
from collections.abc import Callable, Iterable
from collections.abc import Sequence as Items
from typing import Protocol

from common.errors import Broken, MeshError, Overloaded
from common.observer import NOBODY, Observer
from common.stream import FinishReason
from services.tts_lm.commands import Begin, Cancel, Close, Command, Credit, Done, Frames, Read, Text
from services.tts_lm.pages import PageAllocator
from services.tts_lm.prefix import Prefix, PrefixCache
from services.tts_lm.runner_protocol import Runner
from services.tts_lm.scheduler import DEFAULT, Policy, StepPlan, plan_step
from services.tts_lm.sequence import Sequence

Publish = Callable[[Items[Frames | Done]], None]
Clock = Callable[[], float]


class Inbox(Protocol):
    """Where commands wait: a `queue.SimpleQueue`, or a simulation's."""

    def put(self, item: Command, /) -> None: ...
    def get(self, block: bool = True, timeout: float | None = None) -> Command: ...


class Loop:
    """Runs sequences on a runner until `Close`; `run` is the body of the thread.

    `prefix_pages` bounds what is kept of prompts that begin alike (0: nothing).
    """

    def __init__(
        self,
        runner: Runner,
        publish: Publish,
        observer: Observer = NOBODY,
        *,
        policy: Policy = DEFAULT,
        prefix_pages: int = 0,
        clock: Clock = time.perf_counter,
        commands: Inbox | None = None,
    ) -> None:
        self.commands: Inbox = queue.SimpleQueue() if commands is None else commands
        self.now_s = clock
        self._runner, self._publish, self._observer, self._policy = runner, publish, observer, policy
        self._allocator = PageAllocator(runner.page_count, runner.page_size)
        self.prefixes = PrefixCache(self._allocator, prefix_pages)
        self._live: dict[int, Sequence] = {}  # by slot, in order of arrival
        self._waiting_s: dict[int, float] = {}  # by slot: since when those without a frame have all they need
        self._events: list[Frames | Done] = []
        self._turns = 0
        self._starved_count = 0
        self._closing = False

    @property
    def free_page_count(self) -> int:
        """Pages that nobody holds or that are given back as soon as somebody needs them."""
        return self._allocator.free_count + self.prefixes.idle_page_count

    def run(self) -> None:
        """Until `Close`. A failure of the device ends every utterance with its error, and is raised."""
        try:
            while not self._closing:
                self.turn()
            self._flush_events()
        except Exception as error:
            told = error if isinstance(error, MeshError) else Broken(f"the speech model failed: {error}")
            for sequence in list(self._live.values()):
                self._finish(sequence, FinishReason.FAILED, told)
            self._flush_events()
            raise

    def turn(self) -> None:
        """One turn: commands, then a step if any sequence can take one; else wait for a command or a time limit."""
        self._take_commands(0.0)
        plan = self._plan()
        if not plan.is_empty:
            self._step(plan)
            return
        # Whoever ended here may have made room for others: only a turn that changed nothing may wait.
        nothing_changed = not self._events
        self._flush_events()
        if nothing_changed and not self._closing:
            self._take_commands(self._patience())
            self._flush_events()

    def keep(self, prefixes: Iterable[Prefix]) -> None:
        """Compute these before anybody asks, as far as there is room; not counted as misses."""
        for prefix in prefixes:
            if self.prefixes.is_full:
                return
            self.prefixes.find(prefix)
            self._step(plan_step((), self.now_s(), self._policy, self.prefixes.pending()))

    def _take_commands(self, wait_s: float | None) -> None:
        """All commands that are there; when `wait_s` is not 0, first wait for one (None: for ever)."""
        try:
            self._obey(self.commands.get(block=wait_s != 0.0, timeout=wait_s))
            while True:
                self._obey(self.commands.get(block=False))
        except queue.Empty:
            pass

    def _obey(self, command: Command) -> None:
        match command:
            case Begin(sequence, at_s):
                self._begin(sequence, at_s)
            case Close():
                self._closing = True
                for sequence in list(self._live.values()):
                    self._finish(sequence, FinishReason.CANCELLED)
            case _ if self._live.get(command.sequence.slot) is not command.sequence:
                pass  # it has ended; whoever holds the slot now is somebody else
            case Text(sequence, ids, at_s, finished):
                if sequence.slot in self._waiting_s and sequence.lacks_text():
                    self._waiting_s[sequence.slot] = at_s
                sequence.script.feed(ids)
                if finished:
                    sequence.script.finish()
            case Credit(sequence, frames):
                sequence.credit = (sequence.credit or 0) + frames
            case Read(sequence, frames):
                sequence.read_count += frames
            case Cancel(sequence):
                self._finish(sequence, FinishReason.CANCELLED)

    def _begin(self, sequence: Sequence, at_s: float) -> None:
        self._live[sequence.slot] = sequence
        self._waiting_s[sequence.slot] = at_s
        sequence.starved_since_s = self.now_s()
        if sequence.prefix is not None:
            self._observer.prefix(self.prefixes.holds(sequence.prefix.key))
            self.prefixes.find(sequence.prefix)  # runs before the first word is there

    def _plan(self) -> StepPlan:
        """Whoever has text, credit and room; ends those that have nothing to say, waited too long or found no room."""
        now = self.now_s()
        ready: list[Sequence] = []
        roomless: list[Sequence] = []
        self._starved_count = 0
        for sequence in list(self._live.values()):
            if sequence.is_empty():
                sequence.end = sequence.end or FinishReason.COMPLETED
            if sequence.end is None and self._starves(sequence, now):
                sequence.end = FinishReason.TEXT_TIMEOUT
            if sequence.end is not None:
                self._finish(sequence, sequence.end)
            elif sequence.lacks_text():
                self._starved_count += 1
            elif not sequence.lacks_credit():
                (ready if self._make_room(sequence) else roomless).append(sequence)
        if roomless and not ready:
            # Nobody can go on, so nobody will give pages back: the latest to come gives way.
            self._finish(roomless[-1], FinishReason.FAILED, Overloaded("the memory for speech in progress is used up"))
        return plan_step(ready, now, self._policy, self.prefixes.pending())

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
        return max(0.001, min(limits) - self.now_s()) if limits else None

    def _make_room(self, sequence: Sequence) -> bool:
        """Pages for what it reads next; what others may need later gives way to it."""
        if not sequence.prefilled and sequence.fill is None and sequence.prefix is not None:
            sequence.stand_behind(self.prefixes.find(sequence.prefix), self._allocator.page_size)
        wanted = sequence.position + sequence.next_row_count()
        if self._allocator.grow(sequence.pages, wanted):
            return True
        self.prefixes.make_room(self._allocator.missing(sequence.pages, wanted))
        if self._allocator.grow(sequence.pages, wanted):
            return True
        if not sequence.prefilled and sequence.prefix is not None:
            sequence.step_back()
            self._allocator.release(sequence.pages)
        return False

    def _step(self, plan: StepPlan) -> None:
        began = self.now_s()
        self._turns += 1
        for slot in [s.slot for s in plan.prefills if s.slot in self._waiting_s]:
            self._observer.waited(began - self._waiting_s.pop(slot))
        rows = [sequence.next_row_count() for sequence in plan.sequences]
        frames = self._runner.launch(plan)
        self._flush_events()  # what the last step gave goes out while the device runs this one
        codes = frames()
        for fill in plan.fills:
            fill.done = True
        produced_at, produced_time = self.now_s(), time.time()
        for sequence, frame, count in zip(plan.sequences, codes, rows, strict=True):
            sequence.compute_s += produced_at - began
            sequence.served_turn = self._turns
            sequence.advance(count)
            sequence.sampled(frame)
            pausing = sequence.end is None and (sequence.lacks_text() or sequence.lacks_credit())
            packet = sequence.take_packet(pausing=pausing, now_s=produced_at)
            if packet is not None:
                self._events.append(Frames(sequence, packet, produced_at, produced_time))
                self._observer.lead(sequence.lead_s(produced_at))
            if sequence.end is not None:
                self._finish(sequence, sequence.end)
        if plan.sequences:
            self._observer.step(produced_at - began, len(plan.sequences))
        if self._starved_count:
            self._observer.starved(self._starved_count)

    def _finish(self, sequence: Sequence, reason: FinishReason, error: MeshError | None = None) -> None:
        sequence.end = reason
        del self._live[sequence.slot]
        self._waiting_s.pop(sequence.slot, None)
        self._allocator.release(sequence.pages)
        sequence.leave()
        self._events.append(Done(sequence, reason, error))

    def _flush_events(self) -> None:
        if self._events:
            events, self._events = self._events, []
            self._publish(events)
