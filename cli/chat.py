"""A conversation in the terminal: lines out, sound and text in. What is read and printed, not how it is dialled.

    typed line ─▶ question        blank line while it speaks ─▶ silence        end of input ─▶ finish, then leave

A person at a terminal may ask on while it still speaks; lines from a pipe wait for the answer before them, blank ones
never wait.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TextIO

from cli.utterance import ended_facts

if TYPE_CHECKING:
    from voicemesh.gateway.v1 import gateway_pb2
    from voicemesh.stream.v1 import stream_pb2

_READ_BYTES = 65536


async def typed_lines(file: int) -> AsyncIterator[str]:
    """Lines of a terminal, a pipe or a file, each when it is whole; no thread that would outlive an interrupt."""
    queue: asyncio.Queue[bytes] = asyncio.Queue()
    loop = asyncio.get_running_loop()

    def readable() -> None:
        try:
            piece = os.read(file, _READ_BYTES)
        except OSError:  # a terminal that was closed
            piece = b""
        queue.put_nowait(piece)
        if not piece:
            loop.remove_reader(file)

    try:
        loop.add_reader(file, readable)
    except PermissionError:  # a plain file: never makes us wait
        while piece := os.read(file, _READ_BYTES):
            queue.put_nowait(piece)
        queue.put_nowait(b"")
    try:
        rest = b""
        while piece := await queue.get():
            *whole, rest = (rest + piece).split(b"\n")
            for line in whole:
                yield line.decode("utf-8", "replace").strip()
        if rest.strip():
            yield rest.decode("utf-8", "replace").strip()
    finally:
        loop.remove_reader(file)


@dataclass
class Answer:
    """One answer as it comes."""

    question: str
    text: str = ""
    heard_characters: int = 0
    milestones_ms: dict[str, float] = field(default_factory=dict)
    error: str = ""

    @property
    def heard(self) -> str:
        return self.text[: self.heard_characters]


class Screen:
    """What a person reads: the answer as far as it is heard. `is_quiet`: no sound, the text is shown as it comes."""

    def __init__(self, out: TextIO, prompt: str, is_quiet: bool) -> None:
        self._out = out
        self._prompt = prompt
        self._is_quiet = is_quiet
        self._shown = 0

    def ask(self) -> None:
        """It is their turn."""
        self._write(self._prompt)

    def speaking(self, turn: int) -> None:
        """The first sound comes."""

    def progress(self, answer: Answer) -> None:
        """More was heard, or more text came."""
        end = len(answer.text) if self._is_quiet else answer.heard_characters
        if end > self._shown:
            self._write(answer.text[self._shown : end])
            self._shown = end

    def over(self, turn: int, answer: Answer, reason: str) -> None:
        """It ended."""
        self.progress(answer)
        if answer.error:
            self._write(f"{' ' if self._shown else ''}({answer.error})")
        elif reason != "COMPLETED":
            self._write(" —" if self._shown else "—")
        self._write("\n")
        self._shown = 0

    def _write(self, text: str) -> None:
        self._out.write(text)
        self._out.flush()


class JsonScreen(Screen):
    """The same for programs: a line when an answer begins to sound, and one when it is over."""

    def ask(self) -> None:
        """Programs need no prompt."""

    def speaking(self, turn: int) -> None:
        self._write(json.dumps({"event": "speaking", "turn": turn}) + "\n")

    def progress(self, answer: Answer) -> None:
        """The end says it all."""

    def over(self, turn: int, answer: Answer, reason: str) -> None:
        facts: dict[str, Any] = {
            "event": "answer",
            "turn": turn,
            "question": answer.question,
            "answer": answer.text,
            "heard": answer.heard,
            "finish_reason": reason,
            "milestones_ms": answer.milestones_ms,
        }
        if answer.error:
            facts["error"] = answer.error
        self._write(json.dumps(facts, ensure_ascii=False) + "\n")


class Chat:
    """One conversation. `waits`: questions wait for the answer before them."""

    def __init__(self, screen: Screen, sink: Callable[[bytes], object], waits: bool) -> None:
        self._screen = screen
        self._sink = sink
        self._waits = waits
        self._out: asyncio.Queue[gateway_pb2.ConverseRequest | None] = asyncio.Queue()
        self._questions: deque[str] = deque()
        self._answer: Answer | None = None
        self._turn = 0
        self._reason = ""  # of an answer that failed and may yet be tried again
        self._is_asked = False  # the gateway has taken the question
        self._is_at_end = False
        self.failed_count = 0

    # What goes out.

    async def requests(
        self, start: gateway_pb2.ConverseStart, done_writing: Callable[[], Awaitable[None]]
    ) -> AsyncIterator[gateway_pb2.ConverseRequest]:
        """Everything that is asked, until the end of the input; then the stream is half-closed."""
        from voicemesh.gateway.v1 import gateway_pb2

        yield gateway_pb2.ConverseRequest(start=start)
        self._screen.ask()
        while (request := await self._out.get()) is not None:
            yield request
        await done_writing()

    async def read(self, lines: AsyncIterator[str]) -> None:
        """Take what is typed."""
        async for line in lines:
            self.line(line)
        self._is_at_end = True
        self._go_on()

    def line(self, text: str) -> None:
        """A question, or blank: silence."""
        from voicemesh.gateway.v1 import gateway_pb2
        from voicemesh.stream.v1 import stream_pb2

        if text:
            self._questions.append(text)
            self._go_on()
        elif self._answer is not None:
            self._out.put_nowait(gateway_pb2.ConverseRequest(interrupt=stream_pb2.Stop()))
        else:
            self._screen.ask()

    def _go_on(self) -> None:
        from voicemesh.gateway.v1 import gateway_pb2

        if self._answer is not None and (self._waits or not self._questions):
            return
        if self._questions:
            if self._answer is not None:
                self._give_way()
            question = self._questions.popleft()
            self._answer = Answer(question)
            self._out.put_nowait(gateway_pb2.ConverseRequest(text=question))
        elif self._is_at_end:
            self._out.put_nowait(None)

    def _give_way(self) -> None:
        """The person asks on."""
        answer, self._answer = self._answer, None
        assert answer is not None, "something was asked"
        self._screen.over(self._turn, answer, "CANCELLED")
        self._is_asked, self._reason = False, ""

    # What comes in.

    def receive(self, response: gateway_pb2.ConverseResponse) -> bool:
        """Take one response; the stream's end is the end."""
        kind, answer = response.WhichOneof("payload"), self._answer
        if kind == "event":
            self._event(response.event)
        elif answer is not None and not self._is_asked:
            return False  # of the answer before, which is being silenced
        elif kind == "audio":
            self._sink(response.audio.payload)
        elif answer is None:
            return False
        elif kind == "transcript" and not response.transcript.user:
            self._text(answer, response.transcript)
        elif kind == "ended":
            self._ended(response.ended)
        return False

    def _text(self, answer: Answer, told: gateway_pb2.TranscriptDelta) -> None:
        answer.text = told.text if told.final or told.replaces else answer.text + told.text
        answer.heard_characters = told.heard_character_count
        self._screen.progress(answer)

    def _ended(self, ended: stream_pb2.Ended) -> None:
        self._reason = str(ended_facts(ended)["reason"])
        if self._reason != "FAILED":  # which may be tried again; listening says that it will not
            self._over(self._reason)

    def _event(self, event: gateway_pb2.TurnEvent) -> None:
        answer = self._answer
        if event.type == "turn_committed":
            self._turn, self._is_asked = event.turn, True
        elif answer is None:
            return
        elif event.type == "playout_started":
            self._screen.speaking(event.turn)
        elif event.type == "failed":
            answer.error = event.error.message
            if not self._is_asked:  # the question itself was refused
                self._over("FAILED")
        elif event.type == "turn_measured":
            answer.milestones_ms = {
                one.name: round(one.since_user_speech_end.ToNanoseconds() / 1e6, 1) for one in event.milestones
            }
        elif event.type == "state" and event.state == "listening" and self._is_asked:
            self._over(self._reason or "COMPLETED")

    def _over(self, reason: str) -> None:
        answer = self._answer
        assert answer is not None, "something was asked"
        if reason == "COMPLETED":
            answer.error, answer.heard_characters = "", len(answer.text)
        self.failed_count += reason == "FAILED"
        self._screen.over(self._turn, answer, reason)
        self._answer, self._is_asked, self._reason = None, False, ""
        self._screen.ask()
        self._go_on()
