"""What a person's client is told of the answers: that they begin, how far they are, how they ended, what took how long.

Nothing is told of an epoch before it is the answer.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from common.stream import FinishReason
from services.gateway.session import ports
from services.gateway.session.person import Person
from services.gateway.session.speech import Heard, Speech
from services.gateway.turns.states import Kind


class Client(Protocol):
    """Who is told."""

    def tell(self, event: ports.SessionEvent) -> None: ...


class Teller:
    """`heard_samples` says how much of a speech was heard by now."""

    def __init__(self, client: Client, person: Person, heard_samples: Callable[[Speech], int]) -> None:
        self._client = client
        self._person = person
        self._heard_samples = heard_samples

    def started(self, speech: Speech) -> None:
        """It is the answer."""
        speech.is_told = True
        self._client.tell(ports.AnswerStarted(speech.answer.turn, speech.answer.epoch))

    def text(self, speech: Speech, text: str | None = None, *, final: bool = False) -> None:
        """All that was written of it so far, and how far it was heard."""
        if not speech.is_told:
            return
        words = speech.answer.words
        text = words.text if text is None else text
        heard = min(words.heard(self._heard_samples(speech)), len(text))
        self._client.tell(ports.Transcript(speech.answer.turn, False, text, final, heard))

    def progress(self, speech: Speech) -> None:
        """Some more of it was sent: who reads along learns how far it is."""
        if speech.kind is not Kind.APOLOGY:
            self.text(speech)

    def measured(self, turn: int) -> None:
        """How long the steps of a turn took."""
        milestones = self._person.turn(turn).timeline.since_speech_end_s
        if milestones:
            self._client.tell(ports.TurnMeasured(turn, milestones))

    def ended(self, speech: Speech, reason: FinishReason, heard: Heard, *, is_cut: bool) -> None:
        """It is over; `is_cut`: before it was heard to its end."""
        answer, tell = speech.answer, self._client.tell
        if not speech.is_told:
            return
        if speech.span is not None and is_cut:
            tell(ports.PlayoutStopped(answer.epoch, cleared=True))
        if answer.words.text:
            tell(ports.Transcript(answer.turn, False, answer.words.text, True, heard.characters))
        error = answer.error if reason is FinishReason.FAILED else None
        tell(ports.AnswerEnded(answer.turn, answer.epoch, reason, heard.samples, heard.text, error))
