"""The engine's thread: take commands, plan a step, launch it, hand out the sound; then again.

It alone uses the runner and the sessions. Commands come in through one queue, events leave through each session's
`post`; a command waits for one step at most. Where the runner has a lane for first frames, an ordinary step is left in
flight: commands are taken meanwhile, and first frames run beside it and are waited for. Refuses to know asyncio.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Protocol

from common.errors import Broken, MeshError, NotReady, OutOfOrder
from common.observer import NOBODY, Observer
from common.stream import FinishReason
from services.codec.schedule import Buckets, Row, StepPlan, Want, plan_first, plan_rest, plan_step
from services.codec.session import Session
from services.codec.shelf import Shelf
from services.codec.sound import Samples

_log = logging.getLogger(__name__)

Command = Callable[[], None]

LOOK_EVERY_S = 0.0002
"""How often a step in flight is looked at while no command comes: torch tells of its end only who asks. A look costs
some microseconds, and what has ended lies there for so long at most."""


class Launched(Protocol):
    """A step that the device has."""

    def ready(self) -> bool: ...

    def samples(self) -> list[Samples]: ...


class Runner(Protocol):
    """What the thread needs of the device. `first_buckets` None: steps of first frames are ordinary steps."""

    buckets: Buckets
    first_buckets: Buckets | None

    def launch(self, rows: Sequence[Row], *, first: bool = False) -> Launched: ...

    def copy_slot(self, source: int, target: int) -> None: ...


@dataclass(frozen=True)
class Flight:
    """A step from its launch until its sound is handed out; its slots take part in no other one meanwhile."""

    plan: StepPlan
    sessions: tuple[Session, ...]
    audible: tuple[bool, ...]
    launched: Launched
    began_s: float


class Worker:
    """Methods that take a session may be called from any thread: they only leave a command."""

    def __init__(
        self,
        runner: Runner,
        *,
        slots: int,
        parked: int,
        primed: int,
        max_undelivered: int,
        observer: Observer = NOBODY,
        on_fault: Callable[[MeshError], None] = lambda fault: None,
    ) -> None:
        """Rows of the state: `slots`, then `parked`, then `primed`. A session with more than `max_undelivered` pieces
        of sound that nobody has read sits out steps. `on_fault` is called on the thread when the device has failed."""
        self._runner = runner
        self._observer = observer
        self._commands: SimpleQueue[Command | None] = SimpleQueue()
        self._sessions: dict[int, Session] = {}
        self._parked = Shelf(slots, parked)
        self._primed = Shelf(slots + parked, primed)
        self._max_undelivered = max_undelivered
        self._on_fault = on_fault
        self._steps = 0
        self._flight: Flight | None = None
        self.fault: MeshError | None = None
        self._thread = threading.Thread(target=self._run, name="codec-engine", daemon=True)

    # Commands: called from anywhere.

    def start(self) -> None:
        self._thread.start()

    def open(self, session: Session, slot: int | None, follows: Session | None) -> None:
        """Begin, in `slot`, or where `follows` stands; with no slot, in the slot of `follows` once that has ended."""
        self._commands.put(lambda: self._open(session, slot, follows))

    def feed(self, session: Session, frames: Sequence[Sequence[int]]) -> None:
        self._commands.put(lambda: session.feed(frames) if session.reason is None else None)

    def flush(self, session: Session) -> None:
        def flush() -> None:
            session.flushed = True

        self._commands.put(flush)

    def cancel(self, session: Session) -> None:
        self._commands.put(lambda: self._end(session, FinishReason.CANCELLED))

    def wake(self) -> None:
        self._commands.put(lambda: None)

    def stop(self) -> None:
        self._commands.put(None)

    def join(self) -> None:
        self._thread.join()

    # Everything below runs on the thread.

    def _run(self) -> None:
        try:
            while self._obey():
                self._complete()
                self._step()
                self._complete()
        except Exception as error:  # the top of a thread: nothing may die in silence
            _log.exception("the codec's thread failed")
            self.fault = Broken(f"The codec's device failed: {type(error).__name__}.")
            self._end_all()
            self._on_fault(self.fault)
            while (command := self._commands.get()) is not None:
                command()
                self._end_all()
        self._end_all()

    def _obey(self) -> bool:
        """Carry out what waits; with nothing to launch, wait for a command or a look at the step in flight. False:
        stop."""
        patience_s = self._patience_s()
        while True:
            try:
                command = self._commands.get(timeout=patience_s)
            except Empty:
                return True
            if command is None:
                return False
            command()
            patience_s = 0.0

    def _patience_s(self) -> float | None:
        wants = self._wants()
        if self._flight is None:
            return 0.0 if wants else None
        return 0.0 if any(want.unheard for want in wants) else LOOK_EVERY_S

    def _open(self, session: Session, slot: int | None, follows: Session | None) -> None:
        session.slot = slot
        if follows is not None and follows.reason is None:
            follows.follower = session
            return
        if follows is not None:
            self._follow(session, follows)
        elif session.voice is not None and (row := self._primed.find(session.voice)) is not None:
            assert slot is not None
            self._runner.copy_slot(row, slot)
            session.primed()
        if session.reason is None:
            assert session.slot is not None
            self._sessions[session.slot] = session

    def _follow(self, session: Session, ended: Session) -> None:
        """Go on where an utterance that has ended stood."""
        if ended.reason is not FinishReason.COMPLETED:
            session.end(FinishReason.FAILED, OutOfOrder("The utterance to continue did not complete."))
            return
        session.fresh, session.heard = ended.fresh, ended.heard
        if session.slot is None:
            session.slot = ended.slot  # handed over; nobody has used it since
        elif not ended.fresh:
            row = self._parked.find(ended)
            if row is None:
                session.end(
                    FinishReason.FAILED, NotReady("The state to continue from is no longer held: prime instead.")
                )
                return
            self._runner.copy_slot(row, session.slot)
        self._parked.remove(ended)

    def _wants(self) -> list[Want]:
        now_s = time.perf_counter()
        busy = () if self._flight is None else self._flight.plan.slots
        return [
            Want(slot, s.pending_frames, s.unheard, s.last_served_step, s.playout.lead_s(now_s))
            for slot, s in self._sessions.items()
            if s.pending_frames and slot not in busy and s.undelivered <= self._max_undelivered
        ]

    def _step(self) -> None:
        """Launch what can be; hand out first frames as soon as they are made, other sound once it is there."""
        buckets, first_buckets = self._runner.buckets, self._runner.first_buckets
        self._land_if_ready()
        wants = self._wants()
        first = None if first_buckets is None else plan_first(wants, first_buckets)
        overtaking = None if first is None else self._launch(first, first=True)
        if self._flight is None:
            rest = plan_step(wants, buckets) if first_buckets is None else plan_rest(wants, buckets)
            self._flight = None if rest is None else self._launch(rest)
        if overtaking is not None:
            self._hand_out(overtaking)
        self._land_if_ready()

    def _launch(self, plan: StepPlan, *, first: bool = False) -> Flight:
        began_s = time.perf_counter()
        sessions = tuple(self._sessions[slot] for slot in plan.slots)
        audible = tuple(not s.priming for s in sessions)
        rows = [Row(slot, s.fresh, s.take(plan.frames)) for slot, s in zip(plan.slots, sessions, strict=True)]
        for session in sessions:
            session.fresh = False
        return Flight(plan, sessions, audible, self._runner.launch(rows, first=first), began_s)

    def _land_if_ready(self) -> None:
        flight = self._flight
        if flight is not None and flight.launched.ready():
            self._hand_out(flight)
            self._flight = None

    def _hand_out(self, flight: Flight) -> None:
        """Wait for the step's sound and send it on; an utterance that has ended meanwhile gets none."""
        samples = flight.launched.samples()
        now_s = time.perf_counter()
        took_s = now_s - flight.began_s
        self._observer.step(took_s, len(flight.sessions))
        self._steps += 1
        for session, heard, sound in zip(flight.sessions, flight.audible, samples, strict=True):
            if session.reason is not None:
                continue
            session.last_served_step = self._steps
            session.compute_s += took_s / len(flight.sessions)
            if heard:
                session.playout.sent(flight.plan.frames, now_s)
                session.sound(sound)
            elif not session.priming:
                self._keep_primed(session)

    def _keep_primed(self, session: Session) -> None:
        assert session.slot is not None
        assert session.voice is not None
        if (row := self._primed.place(session.voice)) is not None:
            self._runner.copy_slot(session.slot, row)

    def _complete(self) -> None:
        flying = () if self._flight is None else self._flight.sessions
        for session in list(self._sessions.values()):
            if session.fault is not None:
                self._end(session, FinishReason.FAILED, session.fault)
            elif session.spoken and session not in flying:
                self._end(session, FinishReason.COMPLETED)

    def _end(self, session: Session, reason: FinishReason, error: MeshError | None = None) -> None:
        """Idempotent. A completed state is parked, and handed to the follower if there is one."""
        if session.reason is not None:
            return
        if session.slot is not None and self._sessions.get(session.slot) is session:
            del self._sessions[session.slot]
        session.end(reason, error)
        follower, session.follower = session.follower, None
        if follower is not None and follower.reason is None:
            self._open(follower, None, session)
        elif reason is FinishReason.COMPLETED:
            self._park(session)

    def _park(self, session: Session) -> None:
        """Keep the state for an utterance that may go on from it; the least recently used makes room."""
        if session.fresh or session.slot is None:
            return
        if (row := self._parked.place(session)) is not None:
            self._runner.copy_slot(session.slot, row)

    def _end_all(self) -> None:
        reason = FinishReason.CANCELLED if self.fault is None else FinishReason.FAILED
        while self._sessions:
            self._end(next(iter(self._sessions.values())), reason, self.fault)
