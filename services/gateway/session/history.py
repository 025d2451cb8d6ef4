"""What was said and heard, for the brain: a person's turns whole, an answer only as far as it was heard.

Pure. A turn that is reopened replaces itself, one that was none is withdrawn. Refuses to know who decides that.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from voicemesh.brain.v1 import brain_pb2

from services.gateway.session.tool_book import Made

MAX_ENTRIES = 512
CUT_ENTRIES = 32
"""The oldest go in blocks, so that most turns keep the beginning that a brain has cached."""
MAX_MESSAGES, MAX_CHARACTERS = 900, 800_000
"""Of what a brain takes (1,024 and 1,000,000), with room for instructions, tools and the turn itself."""


@dataclass(frozen=True)
class Said:
    """One entry: the person's turn, or one answer to it (`epoch`)."""

    turn: int
    text: str
    audio: bytes = b""
    epoch: int | None = None
    interrupted: bool = False
    calls: tuple[Made, ...] = ()  # of tools, before the text

    @property
    def is_answer(self) -> bool:
        return self.epoch is not None


class History:
    """`audio_bytes`: how much of the person's audio is kept for turns of which there is no transcript."""

    def __init__(self, audio_bytes: int) -> None:
        self._audio_bytes = audio_bytes
        self._entries: list[Said] = []
        self.revision = 0
        """Rises with every change."""

    def person(self, turn: int, text: str, audio: bytes) -> None:
        """Their turn, in place of what was there of it before; without a word and a sound: none."""
        self.withdraw(turn)
        if text or audio:
            self._add(Said(turn, text, audio))

    def transcript(self, turn: int, text: str) -> None:
        """What they said, in writing: takes the place of its audio."""
        for index, entry in enumerate(self._entries):
            if entry.turn == turn and not entry.is_answer and text:
                self._entries[index] = replace(entry, text=text, audio=b"")
                self.revision += 1

    def withdraw(self, turn: int) -> None:
        """It was no turn, or is not over."""
        self._keep([entry for entry in self._entries if entry.is_answer or entry.turn != turn])

    def answer(self, turn: int, epoch: int, text: str, interrupted: bool, calls: Sequence[Made] = ()) -> None:
        """What was heard of an answer, and what was called for it; nothing of both, and it never happened."""
        self._keep([entry for entry in self._entries if entry.epoch != epoch])
        if text.strip() or calls:
            self._add(Said(turn, text, epoch=epoch, interrupted=interrupted, calls=tuple(calls)))

    def called(self, turn: int, epoch: int, calls: Sequence[Made]) -> None:
        """What was called for a turn and answered when its answer was over: stands with the last one of that turn."""
        if not calls:
            return
        places = [index for index, entry in enumerate(self._entries) if entry.turn <= turn]
        place = places[-1] if places else -1
        if place >= 0 and self._entries[place].turn == turn and self._entries[place].is_answer:
            entry = self._entries[place]
            self._entries[place] = replace(entry, calls=(*entry.calls, *calls))
        else:
            self._entries.insert(place + 1, Said(turn, "", epoch=epoch, interrupted=True, calls=tuple(calls)))
        self._bound()

    def forget_answer(self, epoch: int) -> str:
        """Take an answer back because it goes on; returns what was heard of it. What was called stays called."""
        text = next((entry.text for entry in self._entries if entry.epoch == epoch), "")
        self._entries = [replace(one, text="") if one.epoch == epoch and one.calls else one for one in self._entries]
        self._keep([entry for entry in self._entries if entry.epoch != epoch or entry.calls])
        return text

    def before(self, turn: int) -> list[brain_pb2.Message]:
        """All that came before that turn, as the brain wants it."""
        return [message for entry in self._entries if entry.turn < turn for message in _messages(entry)]

    def _keep(self, entries: list[Said]) -> None:
        if len(entries) != len(self._entries):
            self._entries = entries
            self.revision += 1

    def _add(self, entry: Said) -> None:
        self._entries.append(entry)
        self._bound()

    def _bound(self) -> None:
        self.revision += 1
        while len(self._entries) > 1 and self._is_too_much():
            del self._entries[: min(CUT_ENTRIES, len(self._entries) - 1)]
        if sum(len(kept.audio) for kept in self._entries) > self._audio_bytes:
            self._drop_audio()

    def _is_too_much(self) -> bool:
        messages = sum(1 + 2 * len(entry.calls) for entry in self._entries)
        results = sum(len(result.content) for entry in self._entries for _, result in entry.calls)
        characters = results + sum(len(entry.text) for entry in self._entries)
        return len(self._entries) > MAX_ENTRIES or messages > MAX_MESSAGES or characters > MAX_CHARACTERS

    def _drop_audio(self) -> None:
        """The older half: what nobody wrote down of it is lost."""
        spoken = [index for index, entry in enumerate(self._entries) if entry.audio]
        for index in spoken[: max(1, len(spoken) // 2)]:
            entry = self._entries[index]
            self._entries[index] = replace(entry, audio=b"", text=entry.text or "[spoken]")


def _messages(entry: Said) -> Iterator[brain_pb2.Message]:
    role = brain_pb2.ROLE_ASSISTANT if entry.is_answer else brain_pb2.ROLE_USER
    for call, result in entry.calls:
        yield brain_pb2.Message(role=role, tool_calls=[call])
        content = f"Error: {result.content}" if result.failed else result.content
        yield brain_pb2.Message(role=brain_pb2.ROLE_TOOL, text=content, tool_call_id=call.id)
    if entry.text or entry.audio or not entry.calls:
        yield brain_pb2.Message(role=role, text=entry.text, audio=entry.audio, interrupted=entry.interrupted)
