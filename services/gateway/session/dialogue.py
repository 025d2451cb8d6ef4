"""One conversation: the turn machine and everything it moves.

    transport ── hear, type, interrupt ──▶ machine ──▶ person (the brain listens), agent (answers), playout
    transport ◀─ tell, play ◀──────────────────────────┘

All of it runs on the event loop but the tick, which the pacer's thread calls every 20 ms. Knows no packets and decides
nothing: `services.gateway.turns` does.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any

import numpy as np

from common.errors import InvalidRequest, MeshError
from common.stream import FinishReason
from common.telemetry import Milestone
from services.gateway.access import spend_text
from services.gateway.media import playout as media
from services.gateway.session import ports
from services.gateway.session.agent import Agent
from services.gateway.session.ears import Ears
from services.gateway.session.history import History
from services.gateway.session.house import House
from services.gateway.session.measures import Measures
from services.gateway.session.mouth import Mouth
from services.gateway.session.person import Ear, Person, Turn
from services.gateway.session.recording import Recording
from services.gateway.session.thinking import opened
from services.gateway.session.timeline import Timeline
from services.gateway.session.tuning import tuned
from services.gateway.turns import types as turns
from services.gateway.turns.machine import TurnMachine

logger = logging.getLogger(__name__)
MAX_FORESIGHT_S = 10.0  # a client may say what will be heard, but not whenever
PROGRESS_S = 0.25  # between two signs of life of what is being played


class Dialogue:
    """Implements `ports.Conversation`. `forget` is called when it is over."""

    def __init__(
        self,
        house: House,
        session_id: str,
        resume_token: str,
        settings: ports.SessionSettings,
        forget: Callable[[Dialogue], None],
    ) -> None:
        self.session_id = session_id
        self.resume_token = resume_token
        self.begun_s = time.time()
        self.kind = ""
        self._house = house
        self._forget = forget
        self._loop = asyncio.get_running_loop()
        self._tasks: set[asyncio.Task[None]] = set()
        self._is_over = asyncio.Event()
        self._reason = "closed"
        self._events: deque[turns.Event] = deque()
        self._is_stepping = False
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._machine = TurnMachine(tuned(house.settings, settings.turn_detection), self._loop.time())
        self._mouth = Mouth(house.clock, self._played)
        self._playout = self._mouth.playout
        self._history = History(house.numbers.history_audio_bytes)
        recording = Recording(self._machine.settings.max_turn_s + self._machine.settings.preroll_s + 5.0)
        self._ears = Ears(house.new_listener(), recording)
        self.person = Person(recording, self._open_brain, self._new_timeline)
        self._line = house.new_line()
        self.agent = Agent(house, self, self.person, self._history, self._playout, self._line, self._spawn)
        self.agent.settings = settings
        self._say_text = ""
        self._turn_of: dict[int, int] = {}  # epochs of answers → turns
        self._measures = Measures(house.telemetry)
        self._unanswered = False  # a turn was committed that nothing answers by itself
        self._spawn(self._line.run())

    # What a transport calls: see `ports.Conversation`.

    @property
    def state(self) -> ports.State:
        state = self._machine.state
        return ports.State.CLOSING if state is turns.State.CLOSED else ports.State(state.value)

    @property
    def epoch(self) -> int:
        return max(self._machine.epoch, 0)

    @property
    def turn(self) -> int:
        return self._machine.turn

    @property
    def wanted_epoch(self) -> int | None:
        """What is being made or heard now."""
        return self._machine.wanted_epoch

    def is_carried_by(self, transport: ports.Transport) -> bool:
        """Whether that transport is the one in use."""
        return self._mouth.transport is transport

    def hear(self, samples: ports.Samples, arrived_s: float) -> None:
        if not samples.size or self._mouth.transport is None:
            return
        heard, told = self._ears.hear(samples, arrived_s)
        self.person.hear(heard.astype("<i2").tobytes())
        for event in told:
            self.post(event)

    def type(self, text: str) -> None:
        text = self._checked(text)
        self.person.typed.append(text)
        self.post(turns.Typed())

    def commit(self) -> None:
        if self._unanswered and self._machine.state is turns.State.LISTENING:
            self.post(turns.AnswerRequested())
        else:
            self.post(turns.CommitInput())

    def clear(self) -> None:
        self.post(turns.ClearInput())

    def interrupt(self) -> tuple[int, str]:
        self.agent.last_heard = (0, "")
        self.post(turns.Interrupt())
        return self.agent.last_heard

    def say(self, text: str, interruptible: bool) -> int:
        self._say_text = self._checked(text)
        self.post(turns.Say(interruptible))
        return self._machine.epoch

    def report_playback(self, heard_sample_offset: int | None, client_buffer_s: float | None) -> None:
        if client_buffer_s is not None:
            self.agent.client_buffer_s = min(max(client_buffer_s, 0.0), 10.0)
        if heard_sample_offset is not None and self._machine.wanted_epoch is not None:
            self.agent.report(self._machine.wanted_epoch, max(0, heard_sample_offset))

    def report_first_audible(self, epoch: int, heard_s: float) -> None:
        self._milestone(epoch, Milestone.CLIENT_FIRST_AUDIBLE, heard_s)

    def report_first_opus(self, epoch: int, encoded_s: float) -> None:
        self._milestone(epoch, Milestone.FIRST_OPUS, encoded_s)

    def update(self, settings: ports.SessionSettings) -> None:
        self._machine.configure(tuned(self._house.settings, settings.turn_detection))
        self.agent.settings = settings

    def suspend(self) -> None:
        self._mouth.detach()
        self.post(turns.TransportLost())

    def attach(self, transport: ports.Transport) -> None:
        replaced = self._mouth.detach()
        wanted = self.agent.settings.echo_cancellation
        self._ears.echo = self._house.new_echo() if wanted or (wanted is None and transport.kind != "grpc") else None
        self._mouth.attach(transport, self._ears.echo)
        self.kind = transport.kind
        self.agent.client_buffer_s = transport.client_buffer_s
        if replaced is not None:
            self._spawn(replaced.close("replaced"))
        self.post(turns.Connected())

    def end(self, reason: str) -> None:
        """Close, without waiting for what must be given back."""
        self._reason = reason
        self.post(turns.Close())

    async def close(self, reason: str) -> None:
        self.end(reason)
        await self._is_over.wait()

    def drain(self, reason: str = "draining") -> None:
        """Finish what is being said, then close."""
        self._reason = reason
        self.post(turns.Drain())

    async def over(self) -> None:
        """Return when it is."""
        await self._is_over.wait()

    def _checked(self, text: str) -> str:
        limit = self._house.numbers.max_text_characters
        if len(text) > limit:
            raise InvalidRequest(f"A turn holds at most {limit} characters.", reason="TOO_LARGE")
        if not text.strip():
            raise InvalidRequest("There is nothing in that text.", field="text")
        spend_text(len(text))
        return text

    def _milestone(self, epoch: int, milestone: Milestone, loop_s: float) -> None:
        turn = self._turn_of.get(epoch)
        if turn is None or turn not in self.person.turns:
            return
        unix_s = time.time() + min(loop_s - self._loop.time(), MAX_FORESIGHT_S)
        if self.person.turn(turn).timeline.reached(milestone, unix_s):
            self.agent.tell_measured(turn)

    # The machine: one step at a time; what an action leads to waits until all actions of the step are done.

    def post(self, event: turns.Event) -> None:
        """Something happened."""
        self._events.append(event)
        if self._is_stepping:
            return
        self._is_stepping = True
        try:
            while self._events:
                for action in self._machine.step(self._events.popleft(), self._loop.time()):
                    self._do(action)
                self._end_spans()
        finally:
            self._is_stepping = False
        self._arm("machine", self._machine.due_s, lambda: self.post(turns.Tick()))

    def tell(self, event: ports.SessionEvent) -> None:
        """To the person's client."""
        self._house.watch(self.session_id, self.kind, event)
        self._measures.told(event)
        if self._mouth.transport is not None:
            self._mouth.transport.tell(event)

    def _arm(self, name: str, due_s: float | None, call: Callable[[], None]) -> None:
        timer = self._timers.pop(name, None)
        if timer is not None:
            timer.cancel()
        if due_s is not None and not self._is_over.is_set():
            self._timers[name] = self._loop.call_at(due_s, call)

    def _do(self, action: turns.Action) -> None:
        self._measures.did(action, self._loop.time())
        match action:
            case turns.RaiseFloor():
                self._playout.raise_floor(action.floor)
            case turns.BeginAnswer():
                self._begin(action)
            case turns.QueueSay():
                self.agent.says[action.epoch] = self._say_text
            case turns.ReleaseAnswer():
                self.agent.release(action.epoch)
            case turns.EndAnswer():
                self.agent.end(action)
            case turns.StartPlayout():
                self.agent.play(action.epoch)
            case turns.StopPlayout():
                self._arm("drained", None, lambda: None)
            case turns.HoldPlayout():
                self._playout.hold()
            case turns.ResumePlayout():
                self._playout.resume()
            case turns.FeedSilence():
                self.hear(np.zeros(round(action.duration_s * ports.HEARD_RATE_HZ), np.int16), self._loop.time())
            case turns.Release():
                self._spawn(self._release())
            case turns.JudgeTurn() | turns.JudgeOverlap():
                self._judge(action)
            case _:
                self._narrate(action)

    def _begin(self, action: turns.BeginAnswer) -> None:
        self._unanswered = False
        if action.kind is turns.Kind.SAY and action.epoch not in self.agent.says:
            self.agent.says[action.epoch] = self._say_text
        if action.kind is turns.Kind.ANSWER:
            self._turn_of[action.epoch] = action.turn
            while len(self._turn_of) > 64:
                del self._turn_of[min(self._turn_of)]
        self.agent.begin(action)

    def _judge(self, action: turns.JudgeTurn | turns.JudgeOverlap) -> None:
        if isinstance(action, turns.JudgeOverlap):
            self._measures.voice_began(self.person.recording.time_of(action.from_sample))
        else:
            self._spawn(self._judge_turn(action))

    async def _judge_turn(self, action: turns.JudgeTurn) -> None:
        """Ask the turn model, off the loop."""
        pcm = self.person.recording.cut(action.from_sample, action.end_sample)
        samples, text = np.frombuffer(pcm, "<i2"), self.person.turn(action.turn).understood
        model, judges = self._house.turn_model, self._house.judges
        if judges is None:
            p_complete = model.p_complete(samples, text)
        else:
            p_complete = await self._loop.run_in_executor(judges, model.p_complete, samples, text)
        self.post(turns.TurnJudged(action.turn, action.revision, p_complete))

    def _narrate(self, action: turns.Action) -> None:
        match action:
            case turns.StateChanged():
                state = ports.State.CLOSING if action.state is turns.State.CLOSED else ports.State(action.state.value)
                self.tell(ports.StateChanged(state, action.turn, self.epoch))
            case turns.CandidateChanged():
                self.tell(ports.SpeechCandidate(action.active))
            case turns.SpeechStarted():
                turn = self.person.begins(action.turn, action.from_sample)
                self._cut_by(turn.timeline)
                self.tell(ports.UserSpeechStarted(action.turn, action.from_sample / ports.HEARD_RATE_HZ))
            case turns.SpeechStopped():
                self.person.turn(action.turn).end_sample = action.end_sample
                self.tell(ports.UserSpeechStopped(action.turn, action.end_sample / ports.HEARD_RATE_HZ))
            case turns.TurnCommitted():
                self._committed(action)
            case turns.TurnReopened():
                if action.committed:
                    self._history.withdraw(action.turn)
                self.person.goes_on(action.turn)
            case turns.TurnDropped():
                self._history.withdraw(action.turn)
                self.person.drop(action.turn)
            case turns.FalseInterruption():
                self.tell(ports.FalseInterruption(action.resumed))
            case turns.BackchannelHeard():
                self.tell(ports.Backchannel())
            case turns.UserAway():
                self.tell(ports.UserAway())
            case turns.AnswerLost():
                logger.warning("no answer after all attempts", extra={"session": self.session_id})

    def _committed(self, action: turns.TurnCommitted) -> None:
        now_s, unix_s = self._loop.time(), time.time()
        stopped_s = now_s if action.typed else self.person.recording.time_of(self.person.turn(action.turn).end_sample)
        turn = self.person.commit(action.turn, action.from_sample, action.end_sample)
        turn.timeline.open(unix_s - max(0.0, now_s - stopped_s), unix_s)
        self._cut_by(turn.timeline)
        self._history.person(turn.number, turn.text, turn.audio)
        self._unanswered = action.epoch is None
        self.tell(ports.TurnCommitted(turn.number, action.typed))
        if turn.typed and not turn.audio:
            self.tell(ports.Transcript(turn.number, True, turn.text, True))

    def _cut_by(self, timeline: Timeline) -> None:
        for work, _, _ in self.agent.ended:
            work.cut_by(timeline.work.trace_parent())

    def _end_spans(self) -> None:
        for work, reason, error in self.agent.ended:
            work.end(reason, error)
        self.agent.ended.clear()

    # The brain.

    def _open_brain(self, turn: Turn) -> Ear:
        return opened(self._house, self, self._spawn, self.session_id, turn, self.agent.settings, self._history)

    def _new_timeline(self, number: int) -> Timeline:
        return Timeline(self._house.telemetry.turn(session_id=self.session_id, epoch=self.epoch))

    def brain_says(self, epoch: int, text: str, token_count: int) -> None:
        """See `person.Owner`."""
        self.agent.brain_says(epoch, text, token_count)

    def brain_is_over(self, epoch: int, reason: FinishReason, error: MeshError | None) -> None:
        """See `person.Owner`."""
        self.agent.brain_is_over(epoch, reason, error)

    def brain_understood(self, turn: int, text: str, final: bool) -> None:
        """See `person.Owner`."""
        if turn in self.person.turns:
            self.person.turn(turn).understood = text
        if final:
            self._history.transcript(turn, text)
        self.tell(ports.Transcript(turn, True, text, final))

    # Sound on its way out.

    def _played(self, first_of: int | None, unix_s: float, news: tuple[media.PlayoutEvent, ...]) -> None:
        if first_of is not None:
            self.agent.is_heard(first_of, unix_s)
            self._arm("progress", self._loop.time() + PROGRESS_S, self._progress)
        for event in news:
            self._measures.played(event)
            if isinstance(event, media.Finished):
                self._arm(
                    "drained",
                    self._loop.time() + self.agent.client_buffer_s,
                    lambda epoch=event.epoch: self._drained(epoch),  # type: ignore[misc]
                )

    def _drained(self, epoch: int) -> None:
        self.tell(ports.PlayoutStopped(epoch, cleared=False))
        self.post(turns.PlayoutDrained(epoch))

    def _progress(self) -> None:
        """A sign of life while something is played."""
        epoch = self._machine.wanted_epoch
        if epoch is None or epoch not in self.agent.speeches:
            return
        if self.agent.has_moved(epoch):
            self.post(turns.PlayoutProgress(epoch))
            self.agent.progress(epoch)
        self._arm("progress", self._loop.time() + PROGRESS_S, self._progress)

    # The end.

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run beside the conversation. A bug in it ends this conversation, not the others."""
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if task.cancelled() or task.exception() is None:
            return
        logger.error("conversation broke", exc_info=task.exception(), extra={"session": self.session_id})
        self._reason = "broken"
        self.post(turns.Close())

    async def _release(self) -> None:
        """Give everything back."""
        transport = self._mouth.detach()
        self.agent.close()
        self.person.close()
        self._line.finish()
        self._end_spans()
        if transport is not None:
            await transport.close(self._reason)
        mine = asyncio.current_task()
        others = [task for task in self._tasks if task is not mine]
        if others:
            await asyncio.wait(others, timeout=2.0)
        for task in others:
            task.cancel()
        self.post(turns.Released())
        self._is_over.set()
        for timer in self._timers.values():
            timer.cancel()
        self._forget(self)
