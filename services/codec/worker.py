"""The engine's thread: take commands, plan a step, run it, hand out the sound; then again.

It alone uses the runner and the sessions. Commands come in through one queue, events leave through each session's
`post`; a command waits for one step at most. Refuses to know asyncio.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from queue import SimpleQueue
from typing import Protocol

from common.errors import Broken, MeshError, NotReady, OutOfOrder
from common.observer import NOBODY, Observer
from common.stream import FinishReason
from services.codec.schedule import Buckets, Row, Want, plan_step
from services.codec.session import Session
from services.codec.shelf import Shelf
from services.codec.sound import Samples

_log = logging.getLogger(__name__)

Command = Callable[[], None]


class Runner(Protocol):
    """What the thread needs of the device."""

    buckets: Buckets

    def decode(self, rows: Sequence[Row]) -> list[Samples]: ...

    def copy_slot(self, source: int, target: int) -> None: ...


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
        """Carry out what waits; with nothing to decode, wait for a command. False: stop."""
        idle = not self._wants()
        while idle or not self._commands.empty():
            command = self._commands.get()
            if command is None:
                return False
            command()
            idle = False
        return True

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
        return [
            Want(slot, s.pending_frames, s.unheard, s.last_served_step, s.playout.lead_s(now_s))
            for slot, s in self._sessions.items()
            if s.pending_frames and s.undelivered <= self._max_undelivered
        ]

    def _step(self) -> None:
        plan = plan_step(self._wants(), self._runner.buckets)
        if plan is None:
            return
        began = time.perf_counter()
        sessions = [self._sessions[slot] for slot in plan.slots]
        audible = [not s.priming for s in sessions]
        rows = [Row(slot, s.fresh, s.take(plan.frames)) for slot, s in zip(plan.slots, sessions, strict=True)]
        samples = self._runner.decode(rows)
        took_s = time.perf_counter() - began
        self._observer.step(took_s, len(rows))
        share = took_s / len(rows)
        self._steps += 1
        for session, heard, sound in zip(sessions, audible, samples, strict=True):
            session.fresh, session.last_served_step = False, self._steps
            session.compute_s += share
            if heard:
                session.playout.sent(plan.frames, began + took_s)
                session.sound(sound)
            elif not session.priming:
                self._keep_primed(session)

    def _keep_primed(self, session: Session) -> None:
        assert session.slot is not None
        assert session.voice is not None
        if (row := self._primed.place(session.voice)) is not None:
            self._runner.copy_slot(session.slot, row)

    def _complete(self) -> None:
        for session in list(self._sessions.values()):
            if session.fault is not None:
                self._end(session, FinishReason.FAILED, session.fault)
            elif session.spoken:
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
