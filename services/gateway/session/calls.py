"""Tools on their way: from the brain that wants one called to the client that does, and back.

On a guess nothing is called: what was wanted waits until the guess is the answer.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from voicemesh.brain.v1 import brain_pb2

from services.gateway.session import ports
from services.gateway.session.history import History
from services.gateway.session.person import Person
from services.gateway.session.speech import Speech
from services.gateway.turns.events import AnswerBusy, Event


class Hub(Protocol):
    """The turn machine and the client."""

    def post(self, event: Event) -> None: ...
    def tell(self, event: ports.SessionEvent) -> None: ...


class Calls:
    """Of the speeches that are alive."""

    def __init__(self, hub: Hub, person: Person, speeches: Mapping[int, Speech], history: History) -> None:
        self._hub = hub
        self._person = person
        self._speeches = speeches
        self._history = history

    def wanted(self, epoch: int, call: brain_pb2.ToolCall) -> None:
        """By the brain that answers."""
        speech = self._speeches.get(epoch)
        if speech is not None and speech.is_told:
            self._make(speech, call)
        elif speech is not None:
            speech.calls.append(call)

    def release(self, speech: Speech) -> None:
        """It was a guess, and is the answer."""
        calls, speech.calls = speech.calls, []
        for call in calls:
            self._make(speech, call)

    def _make(self, speech: Speech, call: brain_pb2.ToolCall) -> None:
        self._hub.post(AnswerBusy(speech.answer.epoch))
        if self._person.turn(speech.answer.turn).tools.call(call, speech.answer.epoch):
            self._hub.tell(ports.ToolCalled(speech.answer.turn, speech.answer.epoch, call))

    def answered(self, call_id: str, content: str, failed: bool) -> bool:
        """By the client, also when nobody waits for the answer any more. False: nothing of that id was called."""
        turn = next((one for one in self._person.turns.values() if one.tools.is_open(call_id)), None)
        if turn is None:
            return False
        alive = (speech for speech in self._speeches.values() if speech.answer.turn == turn.number)
        brain = next((speech.brain for speech in alive if speech.brain is not None), None)
        if brain is not None:
            brain.tool_result(call_id, content, failed)
        else:
            turn.tools.close(call_id, content, failed)
            self._history.called(turn.number, turn.tools.epoch, turn.tools.unrecorded())
        return True
