"""What is done when the turn machine asks for it: to the agent, to the person's turns, to the playout, to the client.

Each action is done in its place in the order, and none of them waits. Refuses to decide anything.
"""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from services.gateway.session import ports
from services.gateway.session.agent import Agent
from services.gateway.session.aside import Aside
from services.gateway.session.history import History
from services.gateway.session.house import House
from services.gateway.session.measures import Measures
from services.gateway.session.person import Person
from services.gateway.session.steps import Alarms
from services.gateway.session.tasks import Tasks
from services.gateway.session.timeline import Timeline
from services.gateway.turns import actions, events, states
from services.gateway.turns.settings import TurnSettings

logger = logging.getLogger(__name__)
KEPT_EPOCHS = 64  # whose turn is known when a client tells late when it heard them


class Core(Protocol):
    """The conversation, for what only it can do."""

    session_id: str

    @property
    def epoch(self) -> int: ...
    @property
    def settings(self) -> TurnSettings: ...
    def post(self, event: events.Event) -> None: ...
    def tell(self, event: ports.SessionEvent) -> None: ...
    def feed_silence(self, duration_s: float) -> None: ...
    def release(self) -> None: ...


@dataclass
class Deeds:
    """See the module."""

    house: House
    core: Core
    agent: Agent
    person: Person
    history: History
    measures: Measures
    aside: Aside
    alarms: Alarms
    tasks: Tasks

    def __post_init__(self) -> None:
        self._time = asyncio.get_running_loop().time
        self.turn_of: dict[int, int] = {}
        """Epochs of answers → turns."""
        self.say_text = ""
        """Of the `Say` that is being posted."""
        self.is_unanswered = False
        """A turn was committed that nothing answers by itself."""

    def do(self, action: actions.Action) -> None:
        """That, now."""
        self.measures.did(action, self._time())
        playout = self.agent.playout
        match action:
            case actions.RaiseFloor():
                playout.raise_floor(action.floor)
            case actions.BeginAnswer():
                self._begin(action)
            case actions.QueueSay():
                self.agent.says[action.epoch] = self.say_text
            case actions.ReleaseAnswer():
                self.agent.release(action.epoch)
            case actions.EndAnswer():
                self.agent.end(action)
            case actions.StartPlayout():
                self.agent.play(action.epoch)
            case actions.StopPlayout():
                self.alarms.clear("drained")
            case actions.HoldPlayout():
                playout.hold()
            case actions.ResumePlayout():
                playout.resume()
            case actions.FeedSilence():
                self.core.feed_silence(action.duration_s)
            case actions.Release():
                self.core.release()
            case actions.JudgeTurn():
                self.tasks.spawn(self._judge_turn(action))
            case actions.JudgeOverlap():
                self._judge_overlap(action)
            case actions.OverlapPaused():
                self.aside.paused(action.epoch)
            case _:
                self._tell(action)

    def _begin(self, action: actions.BeginAnswer) -> None:
        self.is_unanswered = False
        if action.kind is states.Kind.SAY and action.epoch not in self.agent.says:
            self.agent.says[action.epoch] = self.say_text
        if action.kind is states.Kind.ANSWER:
            self.turn_of[action.epoch] = action.turn
            while len(self.turn_of) > KEPT_EPOCHS:
                del self.turn_of[min(self.turn_of)]
        self.agent.begin(action)

    async def _judge_turn(self, action: actions.JudgeTurn) -> None:
        """Ask the turn model, off the loop."""
        pcm = self.person.recording.cut(action.from_sample, action.end_sample)
        samples, text = np.frombuffer(pcm, "<i2"), self.person.turn(action.turn).understood
        model, judges = self.house.turn_model, self.house.judges
        if judges is None:
            p_complete = model.p_complete(samples, text)
        else:
            loop = asyncio.get_running_loop()
            p_complete = await loop.run_in_executor(judges, model.p_complete, samples, text)
        self.core.post(events.TurnJudged(action.turn, action.revision, p_complete))

    def _judge_overlap(self, action: actions.JudgeOverlap) -> None:
        recording = self.person.recording
        self.measures.voice_began(recording.time_of(action.from_sample))
        if self.core.settings.await_overlap_verdict:
            before = round(self.core.settings.preroll_s * ports.HEARD_RATE_HZ)
            self.aside.begins(action.epoch, recording.cut(max(0, action.from_sample - before)))

    # What is told.

    def _tell(self, action: actions.Action) -> None:
        tell = self.core.tell
        match action:
            case actions.StateChanged():
                if action.state is not states.State.HOLD:
                    self.aside.over()
                tell(ports.StateChanged(state_of(action.state), action.turn, self.core.epoch))
            case actions.CandidateChanged():
                tell(ports.SpeechCandidate(action.active))
            case actions.SpeechStarted():
                turn = self.person.begins(action.turn, action.from_sample)
                self._cut_by(turn.timeline)
                tell(ports.UserSpeechStarted(action.turn, action.from_sample / ports.HEARD_RATE_HZ))
            case actions.SpeechStopped():
                self.person.turn(action.turn).end_sample = action.end_sample
                tell(ports.UserSpeechStopped(action.turn, action.end_sample / ports.HEARD_RATE_HZ))
            case actions.TurnCommitted():
                self._committed(action)
            case actions.TurnReopened():
                if action.committed:
                    self.history.withdraw(action.turn)
                self.person.goes_on(action.turn)
            case actions.TurnDropped():
                self.history.withdraw(action.turn)
                self.person.drop(action.turn)
            case actions.FalseInterruption():
                tell(ports.FalseInterruption(action.resumed))
            case actions.BackchannelHeard():
                tell(ports.Backchannel())
            case actions.UserAway():
                tell(ports.UserAway())
            case actions.AnswerLost():
                logger.warning("no answer after all attempts", extra={"session": self.core.session_id})

    def _committed(self, action: actions.TurnCommitted) -> None:
        now_s, unix_s = self._time(), time.time()
        recording = self.person.recording
        stopped_s = now_s if action.typed else recording.time_of(self.person.turn(action.turn).end_sample)
        turn = self.person.commit(action.turn, action.from_sample, action.end_sample)
        turn.timeline.open(unix_s - max(0.0, now_s - stopped_s), unix_s)
        self._cut_by(turn.timeline)
        self.history.person(turn.number, turn.text, turn.audio)
        self.is_unanswered = action.epoch is None
        self.core.tell(ports.TurnCommitted(turn.number, action.typed))
        if turn.typed and not turn.audio:
            self.core.tell(ports.Transcript(turn.number, True, turn.text, True))

    def _cut_by(self, timeline: Timeline) -> None:
        for work, _, _ in self.agent.ended:
            work.cut_by(timeline.work.trace_parent())

    def end_spans(self) -> None:
        """Of the turns whose answer ended in the step that is done."""
        for work, reason, error in self.agent.ended:
            work.end(reason, error)
        self.agent.ended.clear()


def state_of(state: states.State) -> ports.State:
    """As it is told to the outside."""
    return ports.State.CLOSING if state is states.State.CLOSED else ports.State(state.value)
