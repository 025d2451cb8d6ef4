"""The person's side of a conversation: what they said, by turn, and the brain that listens while they say it.

A turn's brain stream is opened when their speech begins and is handed to the epoch that answers it. Refuses to decide
when a turn begins or ends: the turn machine does.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from voicemesh.brain.v1 import brain_pb2

from common.errors import InvalidRequest, MeshError
from common.stream import FinishReason
from services.gateway.session.brain_client import BrainAnswer
from services.gateway.session.recording import Recording
from services.gateway.session.timeline import Timeline
from services.gateway.session.tool_book import ToolBook

KEPT_TURNS = 64  # whose timeline can be asked for


class Owner(Protocol):
    """Who is told what a brain says; all on the event loop."""

    def brain_says(self, epoch: int, text: str, token_count: int) -> None: ...
    def brain_is_over(self, epoch: int, reason: FinishReason, error: MeshError | None) -> None: ...
    def brain_understood(self, turn: int, text: str, final: bool) -> None: ...
    def brain_calls(self, epoch: int, call: brain_pb2.ToolCall) -> None: ...


class Ear:
    """Listens to one brain stream; `epoch` is None until an answer takes it over."""

    def __init__(self, owner: Owner, turn: int) -> None:
        self._owner = owner
        self._turn = turn
        self.epoch: int | None = None
        self.is_over = False
        self.history_revision = 0
        self.brain: BrainAnswer

    def brain_started(self, tokenizer_fingerprint: str) -> None:
        """It has a slot."""

    def brain_transcript(self, text: str, final: bool) -> None:
        self._owner.brain_understood(self._turn, text, final)

    def brain_text(self, text: str, ids: Sequence[int]) -> None:
        if self.epoch is not None:
            self._owner.brain_says(self.epoch, text, max(1, len(ids)))

    def brain_tool_call(self, call: brain_pb2.ToolCall) -> None:
        if self.epoch is not None:
            self._owner.brain_calls(self.epoch, call)

    def brain_ended(self, reason: FinishReason, error: MeshError | None) -> None:
        self.is_over = True
        if self.epoch is not None:
            self._owner.brain_is_over(self.epoch, reason, error)


@dataclass
class Turn:
    """One turn of the person."""

    number: int
    timeline: Timeline
    from_sample: int = 0
    end_sample: int = 0
    typed: list[str] = field(default_factory=list)
    listening: Ear | None = None
    audio: bytes = b""  # once committed
    understood: str = ""  # of what they said aloud, so far
    is_committed: bool = False
    is_answered: bool = False  # an answer was begun
    tools: ToolBook = field(default_factory=ToolBook)  # called for it

    @property
    def text(self) -> str:
        return "\n".join(self.typed)


class Person:
    """`open_brain` opens a stream for a turn, before anything of it is said, and has it run."""

    def __init__(
        self, recording: Recording, open_brain: Callable[[Turn], Ear], new_timeline: Callable[[int], Timeline]
    ) -> None:
        self.recording = recording
        self._open_brain = open_brain
        self._new_timeline = new_timeline
        self.turns: OrderedDict[int, Turn] = OrderedDict()
        self.typed: list[str] = []  # of a turn that is not committed yet
        self._speaking: Turn | None = None

    def turn(self, number: int) -> Turn:
        """That turn, new or not."""
        turn = self.turns.get(number)
        if turn is None:
            turn = self.turns[number] = Turn(number, self._new_timeline(number))
            if len(self.turns) > KEPT_TURNS:
                self.turns.popitem(last=False)
        return turn

    @property
    def timelines(self) -> dict[int, Timeline]:
        """Of the turns that are known."""
        return {number: turn.timeline for number, turn in self.turns.items()}

    def hear(self, pcm: bytes) -> None:
        """More of their sound, behind what the recording has: to the brain that listens, if one does."""
        turn = self._speaking
        if turn is None or turn.listening is None or turn.listening.is_over:
            return
        try:
            turn.listening.brain.hear(pcm)
        except InvalidRequest:  # longer than any turn: what it answers is what it heard
            self._speaking = None

    def begins(self, number: int, from_sample: int) -> Turn:
        """They speak: a turn begins, or goes on after all."""
        turn = self.turn(number)
        turn.from_sample = from_sample
        self._listen(turn)
        return turn

    def goes_on(self, number: int) -> Turn:
        """The turn was not over."""
        turn = self.turn(number)
        turn.is_committed = turn.is_answered = False
        turn.timeline.reopen()
        self._listen(turn)
        return turn

    def _listen(self, turn: Turn) -> None:
        self._speaking = turn
        if turn.listening is None or turn.listening.is_over:
            turn.listening = self._open_brain(turn)
            turn.listening.brain.hear(self.recording.cut(turn.from_sample))

    def drop(self, number: int) -> None:
        """It was no turn."""
        turn = self.turns.pop(number, None)
        if turn is not None:
            self.stop_listening(turn)
            turn.timeline.work.end("CANCELLED")

    def commit(self, number: int, from_sample: int, end_sample: int) -> Turn:
        """It is their last word."""
        turn = self.turn(number)
        turn.from_sample, turn.end_sample = from_sample, end_sample
        turn.typed += self.typed
        self.typed = []
        turn.audio = self.recording.cut(from_sample, end_sample) if end_sample > from_sample else b""
        turn.is_committed = True
        for older in self.turns.values():  # only the newest can be asked again
            if older.number < number - 1:
                older.audio = b""
        if self._speaking is turn:
            self._speaking = None
        return turn

    def ask(self, number: int, epoch: int, history_revision: int) -> BrainAnswer:
        """The brain stream that answers the turn as `epoch`: the one that listened, or one that is told everything."""
        turn = self.turn(number)
        turn.is_answered = True
        ear, turn.listening = turn.listening, None
        if self._speaking is turn:
            self._speaking = None
        if ear is None or ear.is_over or ear.history_revision != history_revision:
            if ear is not None:
                ear.brain.cancel()
            ear = self._open_brain(turn)
            audio = turn.audio if turn.is_committed else self.recording.cut(turn.from_sample)
            if audio:
                ear.brain.hear(audio)
        ear.epoch = epoch
        text = "\n".join([*turn.typed, *([] if turn.is_committed else self.typed)])
        if text:
            ear.brain.type(text)
        ear.brain.finish()
        return ear.brain

    def stop_listening(self, turn: Turn) -> None:
        """Nobody will answer it."""
        if turn.listening is not None:
            turn.listening.brain.cancel()
            turn.listening = None
        if self._speaking is turn:
            self._speaking = None

    def close(self) -> None:
        """They are gone."""
        for turn in self.turns.values():
            self.stop_listening(turn)
