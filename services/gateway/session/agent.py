"""The agent's side of a conversation: what it says, by epoch, and what of it was heard.

Begins, releases, plays and ends epochs as the turn machine says; tells what happens to them to its `Hub`. Refuses to
decide anything about turns.
"""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Protocol

from common.errors import MeshError, OutOfTime
from common.stream import FinishReason
from common.telemetry import Milestone, SpanName, Work
from services.gateway.media.playout import Playout
from services.gateway.pipeline import SpeechLine
from services.gateway.session import apology, ports
from services.gateway.session.answer import Answer
from services.gateway.session.calls import Calls
from services.gateway.session.history import History
from services.gateway.session.house import House, Spawn
from services.gateway.session.person import Person
from services.gateway.session.speech import NOTHING, Heard, Speech, spoken_by
from services.gateway.session.telling import Teller
from services.gateway.session.words import Words
from services.gateway.turns import actions, events, states
from services.gateway.turns.heard import SpeakingPace

logger = logging.getLogger(__name__)
_CANCELLED = FinishReason.CANCELLED
_REASONS = {states.Ending.INCOMPLETE: FinishReason.FAILED, states.Ending.FAILED: FinishReason.FAILED}
_HOPELESS = ("INVALID_ARGUMENT", "NOT_FOUND")  # what was asked for cannot be had, however often it is asked
_LATE = {
    states.Ending.FAILED: "Nothing of the answer came in time.",
    states.Ending.INCOMPLETE: "The rest of the answer did not come in time.",
}
_UNTOLD = (states.Ending.WASTED, states.Ending.EMPTY)


class Hub(Protocol):
    """Where the agent's news go."""

    session_id: str

    def post(self, event: events.Event) -> None:
        """To the turn machine, after the step that runs."""

    def tell(self, event: ports.SessionEvent) -> None:
        """To the person's client."""


class Agent:
    """See the module."""

    def __init__(
        self,
        house: House,
        hub: Hub,
        person: Person,
        history: History,
        playout: Playout,
        line: SpeechLine,
        spawn: Spawn,
        settings: ports.SessionSettings,
    ) -> None:
        self._house = house
        self._hub = hub
        self._person = person
        self._history = history
        self.playout = playout
        self._line = line
        self._spawn = spawn
        self._time = asyncio.get_running_loop().time
        self.settings = settings
        self.client_buffer_s = ports.DEFAULT_CLIENT_BUFFER_S
        self.speeches: dict[int, Speech] = {}
        self.teller = Teller(hub, person, self._heard_samples)
        self.calls = Calls(hub, person, self.speeches, history)
        self.says: dict[int, str] = {}
        self.last_heard = (0, "")
        self._pace = SpeakingPace()
        self._sent = (-1, 0)
        self._last_error: MeshError | None = None
        self.ended: list[tuple[Work, str, str | None]] = []
        """Turns whose answer ended in the step that runs: their spans are ended with it."""
        self._texts: dict[int, tuple[str, int]] = {}  # of what was interrupted: its text, and characters heard of it

    # Beginning.

    def begin(self, action: actions.BeginAnswer) -> None:
        """Make an epoch."""
        if action.kind is states.Kind.SAY:
            self._begin_say(action)
        elif action.kind is states.Kind.APOLOGY:
            self._new(action, self._words()).answer.play_ready_made(apology.earcon())
            self.teller.text(self.speeches[action.epoch], apology.TEXT, final=True)
        elif action.kind is states.Kind.CONTINUATION:
            self._begin_continuation(action)
        else:
            if action.attempt > 1:
                self._person.turn(action.turn).timeline.forget_answer()
            speech = self._new(action, self._words())
            speech.brain = self._person.ask(action.turn, action.epoch, self._history.revision)
            if not action.held:
                speech.brain.confirm()

    def _begin_say(self, action: actions.BeginAnswer) -> None:
        speech = self._new(action, self._words(is_filtered=False))
        speech.answer.add(self.says.pop(action.epoch))
        speech.answer.text_is_over(FinishReason.COMPLETED)

    def _begin_continuation(self, action: actions.BeginAnswer) -> None:
        """Say what was not heard of an answer that noise had interrupted, as far as the brain had come with it."""
        assert action.continues is not None
        text, heard = self._texts.get(action.continues, ("", 0))
        self._history.forget_answer(action.continues)
        speech = self._new(action, self._words(already_heard=text[:heard]))
        speech.answer.add(text[heard:])
        speech.answer.text_is_over(FinishReason.COMPLETED)

    def _new(self, action: actions.BeginAnswer, words: Words) -> Speech:
        timeline = self._person.turn(action.turn).timeline
        epoch = action.epoch
        utterance = self._line.submit(
            spoken_by(self.settings),
            timeline.work.trace_parent(),
            self._hub.session_id,
            lambda milestone: self._reached(epoch, milestone),
        )
        answer = Answer(epoch, action.turn, utterance, words, self.playout, self._house.settings, self)
        self.speeches[epoch] = Speech(answer, action.kind)
        self._spawn(answer.run())
        if not action.held:
            self.teller.started(self.speeches[epoch])
        return self.speeches[epoch]

    def _words(self, is_filtered: bool = True, already_heard: str = "") -> Words:
        filtered = is_filtered and self.settings.speakable_filter
        return Words(
            self._house.settings,
            self._pace,
            filtered,
            already_heard,
            normalise=self._house.numbers.normalise,
            language=self.settings.language,
        )

    def release(self, epoch: int) -> None:
        """A held epoch is the answer: what it wanted done may be done, what it said be told."""
        speech = self.speeches.get(epoch)
        if speech is None:
            return
        if speech.brain is not None:
            speech.brain.confirm()
        self.teller.started(speech)
        if speech.answer.words.text:
            self.teller.text(speech)
        self.calls.release(speech)

    # Speaking.

    def play(self, epoch: int) -> None:
        """Let it be heard."""
        if epoch in self.speeches:
            self.speeches[epoch].answer.play()

    def is_heard(self, epoch: int, unix_s: float) -> None:
        """Its first sound went out."""
        speech = self.speeches.get(epoch)
        if speech is None:
            return
        self._reached(epoch, Milestone.PLAYOUT_FIRST, unix_s)
        timeline = self._person.turn(speech.answer.turn).timeline
        speech.span = self._house.telemetry.utterance(
            SpanName.GATEWAY_PLAYOUT, timeline.work.trace_parent(), session_id=self._hub.session_id, epoch=epoch
        )
        self._hub.tell(ports.PlayoutStarted(epoch))
        self.teller.measured(speech.answer.turn)

    def has_moved(self, epoch: int) -> bool:
        """Whether more of it was sent since the last time."""
        sent = self.playout.sent(epoch)
        moved, self._sent = (epoch, sent) != self._sent, (epoch, sent)
        return moved

    # Ending.

    def end(self, action: actions.EndAnswer) -> None:
        """An epoch is over."""
        self.says.pop(action.epoch, None)
        speech = self.speeches.pop(action.epoch, None)
        if speech is None:
            return
        answer, is_whole = speech.answer, action.ending is states.Ending.COMPLETED
        heard = NOTHING
        if action.audible:
            heard = speech.heard(self.playout, self._time(), self.client_buffer_s, is_whole=is_whole)
        reason = answer.reason if is_whole else _REASONS.get(action.ending, _CANCELLED)
        if speech.kind is states.Kind.APOLOGY:  # it was heard, but it is no answer
            reason, answer.error = FinishReason.FAILED, self._last_error
        if reason is FinishReason.FAILED and answer.error is None:
            answer.error = self._last_error = OutOfTime(_LATE[action.ending])
        if not is_whole:
            answer.cancel()
            if speech.brain is not None:
                speech.brain.cancel()
        self._remember(speech, heard, is_whole, action.audible)
        if speech.span is not None:
            speech.span.end(reason.name)
        if speech.is_told:
            self.last_heard = (heard.samples, heard.text)
        self.teller.ended(speech, reason, heard, is_cut=not is_whole)
        if speech.kind is states.Kind.ANSWER and action.ending not in _UNTOLD and self._is_last(action):
            error = answer.error.reason if answer.error is not None and reason is FinishReason.FAILED else None
            self.ended.append((self._person.turn(answer.turn).timeline.work, reason.name, error))

    def _is_last(self, action: actions.EndAnswer) -> bool:
        """Not one that gives way to another attempt, or to the turn that goes on."""
        return action.audible or action.ending not in (states.Ending.FAILED, states.Ending.SUPERSEDED)

    def _heard_samples(self, speech: Speech) -> int:
        return speech.heard_samples(self.playout, self._time(), self.client_buffer_s)

    def _remember(self, speech: Speech, heard: Heard, is_whole: bool, audible: bool) -> None:
        """In the history: what was heard, and the tools that were called for it, heard or not."""
        answer = speech.answer
        calls = self._person.turn(answer.turn).tools.unrecorded() if speech.kind is states.Kind.ANSWER else []
        is_audible = audible and speech.kind is not states.Kind.APOLOGY
        if calls or is_audible:
            is_cut = not is_whole or answer.speech_reason is not FinishReason.COMPLETED
            text = answer.words.text[: heard.characters] if is_audible else ""
            self._history.answer(answer.turn, answer.epoch, text, interrupted=is_cut, calls=calls)
        if is_audible:
            self._texts = {answer.epoch: (answer.words.text, heard.characters)}

    def report(self, epoch: int, heard_samples: int) -> None:
        """The client says how far it has come."""
        if epoch in self.speeches:
            self.speeches[epoch].reported = (heard_samples, self._time())

    def close(self) -> None:
        """Everything ends."""
        for speech in self.speeches.values():
            speech.answer.cancel()
            if speech.brain is not None:
                speech.brain.cancel()

    # What happens to answers, and what the brain says.

    def brain_says(self, epoch: int, text: str, token_count: int) -> None:
        """See `person.Owner`."""
        if epoch in self.speeches:
            self.speeches[epoch].answer.add(text, token_count)

    def brain_is_over(self, epoch: int, reason: FinishReason, error: MeshError | None) -> None:
        """See `person.Owner`."""
        speech = self.speeches.get(epoch)
        if speech is None:
            return
        has_called = bool(self._person.turn(speech.answer.turn).tools.made)
        if not speech.answer.words.text and error is None and not has_called:
            self._hub.post(events.TurnEmpty(epoch))
        speech.answer.text_is_over(reason, error)

    def answer_text(self, answer: Answer) -> None:
        """See `answer.Owner`."""
        self._hub.post(events.AnswerText(answer.epoch))
        speech = self.speeches.get(answer.epoch)
        if speech is not None:
            self.teller.text(speech)

    def answer_ready(self, answer: Answer) -> None:
        """See `answer.Owner`."""
        self._hub.post(events.AudioReady(answer.epoch))

    def answer_silent(self, answer: Answer) -> None:
        """See `answer.Owner`."""
        self._hub.post(events.PlayoutDrained(answer.epoch))

    def answer_failed(self, answer: Answer, error: MeshError) -> None:
        """See `answer.Owner`."""
        logger.warning("answer failed", extra={"epoch": answer.epoch, "reason": error.reason})
        self._hub.post(events.AnswerFailed(answer.epoch, hopeless=error.status in _HOPELESS))
        self._last_error = error
        self._hub.tell(ports.Failed(error))

    def reached(self, answer: Answer, milestone: Milestone) -> None:
        """See `answer.Owner`."""
        self._reached(answer.epoch, milestone)

    def _reached(self, epoch: int, milestone: Milestone, unix_s: float | None = None) -> None:
        speech = self.speeches.get(epoch)
        if speech is not None and speech.kind is states.Kind.ANSWER:
            timeline = self._person.turn(speech.answer.turn).timeline
            timeline.reached(milestone, time.time() if unix_s is None else unix_s)
