"""Token ids to what is said: whole characters with their ids, stop strings, tool calls. No model, no clock, no loop.

Ids and text stay together: the ids of a chunk decode to exactly its text. Text is held back only while it could still
turn out to be the beginning of a stop string or of a tool call.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterable, Sequence

from services.brain.backend import Call
from services.brain.types import ToolCall

Chunk = tuple[str, tuple[int, ...]]

TOOL_OPEN, TOOL_CLOSE = "<tool_call>", "</tool_call>"
"""How Qwen writes a call: JSON with `name` and `arguments` between these (its chat template says so to the model)."""

Step = Callable[[int], str | None]
"""A detokeniser: one more id in; the text that it completes, or None while a character is not complete."""


class Detokenizer:
    """Ids to chunks that never end within a character; ids of control tokens are not said."""

    def __init__(self, step: Step, silent: frozenset[int]) -> None:
        self._step = step
        self._silent = silent
        self._held: list[int] = []

    def push(self, ids: Iterable[int]) -> list[Chunk]:
        """What these ids complete."""
        chunks: list[Chunk] = []
        for token in ids:
            if token in self._silent:
                continue
            self._held.append(token)
            if text := self._step(token):
                chunks.append((text, tuple(self._held)))
                self._held = []
        return chunks


class Watch:
    """Looks for the first of `marks` in chunks and lets through what can no longer be part of one."""

    def __init__(self, marks: Sequence[str]) -> None:
        self._marks = tuple(marks)
        self._held: list[Chunk] = []

    def push(self, chunk: Chunk) -> tuple[list[Chunk], str | None]:
        """The chunks that may go on, and the mark that came right after them, if one did."""
        self._held.append(chunk)
        text = "".join(part for part, _ in self._held)
        found = min(((at, mark) for mark in self._marks if (at := text.find(mark)) >= 0), default=None)
        if found is None:
            return self._take(len(text) - self._suspect(text), whole=True), None
        free = self._take(found[0], whole=False)
        self._take(len(found[1]), whole=False)
        return free, found[1]

    def rest(self) -> list[Chunk]:
        """Everything still held, at the end or after a mark."""
        held, self._held = self._held, []
        return held

    def _suspect(self, text: str) -> int:
        """Length of the longest end of `text` that a mark begins with."""
        sizes = (size for mark in self._marks for size in range(min(len(mark) - 1, len(text)), 0, -1))
        return max((size for size in sizes if any(mark.startswith(text[-size:]) for mark in self._marks)), default=0)

    def _take(self, length: int, whole: bool) -> list[Chunk]:
        """The first `length` characters; a chunk cut in two loses its ids, with `whole` it stays held instead."""
        taken: list[Chunk] = []
        while self._held and length >= len(self._held[0][0]) > 0:
            taken.append(self._held.pop(0))
            length -= len(taken[-1][0])
        if length > 0 and not whole and self._held:
            text, _ = self._held[0]
            taken.append((text[:length], ()))
            self._held[0] = (text[length:], ())
        return taken


class AnswerParser:
    """A model's ids to chunks and tool calls; `stopped` once a stop string came, of which nothing is said."""

    def __init__(self, step: Step, silent: frozenset[int], stop: Sequence[str], reads_calls: bool) -> None:
        self._detokenizer = Detokenizer(step, silent)
        self._stop = Watch(stop)
        self._open = Watch((TOOL_OPEN,)) if reads_calls else None
        self._close = Watch((TOOL_CLOSE,))
        self._call: str | None = None
        self._after_call = False
        self.stopped = False

    def push(self, ids: Iterable[int]) -> list[Chunk | Call]:
        """What may be said or called now."""
        out: list[Chunk | Call] = []
        for chunk in self._detokenizer.push(ids):
            if self.stopped:
                break
            free, mark = self._stop.push(chunk)
            self.stopped = mark is not None
            out += self._calls(free)
        return out

    def finish(self) -> list[Chunk | Call]:
        """The model has ended: what was held back, and a call that it did not close."""
        out = [] if self.stopped else self._calls(self._stop.rest())
        if self._call is not None:
            text = self._call + "".join(part for part, _ in self._close.rest())
            self._call = None
            return [*out, self._read(text)]
        return out + (self._said(self._open.rest()) if self._open is not None else [])

    def _calls(self, chunks: list[Chunk]) -> list[Chunk | Call]:
        out: list[Chunk | Call] = []
        pending = list(chunks)
        while pending:
            chunk = pending.pop(0)
            if self._open is None:
                out.append(chunk)
            elif self._call is None:
                free, mark = self._open.push(chunk)
                out += self._said(free)
                if mark:
                    self._call, pending = "", self._open.rest() + pending
            else:
                free, mark = self._close.push(chunk)
                self._call += "".join(part for part, _ in free)
                if mark:
                    out.append(self._read(self._call))
                    self._call, pending = None, self._close.rest() + pending
        return out

    def _said(self, chunks: list[Chunk]) -> list[Chunk | Call]:
        """Chunks outside calls; blank ones right after a call only set the next call apart."""
        said: list[Chunk | Call] = []
        for chunk in chunks:
            self._after_call = self._after_call and not chunk[0].strip()
            if not self._after_call:
                said.append(chunk)
        return said

    def _read(self, text: str) -> Call:
        self._after_call = True
        return read_call(new_call_id(), text)


def new_call_id() -> str:
    """A name for a call of a model that gives none; unlike any other in the history."""
    return f"call_{uuid.uuid4().hex[:16]}"


def read_call(call_id: str, text: str) -> Call:
    """A call written as JSON with `name` and `arguments`; what cannot be read becomes a call with an error."""
    try:
        value = json.loads(text)
    except ValueError as error:
        return Call(ToolCall(call_id, "", {}), f"the call is not JSON: {error}")
    if not isinstance(value, dict) or not isinstance(value.get("name"), str):
        return Call(ToolCall(call_id, "", {}), "the call has no name")
    return with_arguments(call_id, value["name"], value.get("arguments", {}))


def with_arguments(call_id: str, name: str, arguments: object) -> Call:
    """A call whose arguments are an object, or the JSON text of one."""
    try:
        value = json.loads(arguments or "{}") if isinstance(arguments, str) else arguments
    except ValueError as error:
        return Call(ToolCall(call_id, name, {}), f"the arguments are not JSON: {error}")
    if not isinstance(value, dict):
        return Call(ToolCall(call_id, name, {}), "the arguments are not an object")
    return Call(ToolCall(call_id, name, value))
