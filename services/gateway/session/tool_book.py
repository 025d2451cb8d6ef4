"""The tools that were called for one turn, and what they answered: each is called once, whoever thinks of it. Pure.

A brain that is lost in mid-answer is replaced by one that begins again, and so is an answer that failed: either may ask
for a call that was made already, under another id. The same name and arguments are the same call.
"""

from __future__ import annotations

from collections.abc import Iterator

from google.protobuf.json_format import MessageToJson
from voicemesh.brain.v1 import brain_pb2

Made = tuple[brain_pb2.ToolCall, brain_pb2.ToolResult]
"""A call, and what it gave."""


class ToolBook:
    """Of one turn."""

    def __init__(self) -> None:
        self._calls: dict[str, list[brain_pb2.ToolCall]] = {}  # by what is called; the first was told to the client
        self._results: dict[str, brain_pb2.ToolResult] = {}
        self._recorded = 0
        self.epoch = 0
        """Of the answer that called one last."""

    def result(self, wanted: brain_pb2.ToolCall) -> brain_pb2.ToolResult | None:
        """What that gave when it was made before, under the new id."""
        known = self._results.get(_what(wanted))
        return None if known is None else _under(known, wanted.id)

    def call(self, wanted: brain_pb2.ToolCall, epoch: int) -> bool:
        """It is wanted for certain: whether it is to be made, and not being made already."""
        self.epoch = epoch
        calls = self._calls.setdefault(_what(wanted), [])
        calls.append(wanted)
        return len(calls) == 1

    def is_open(self, call_id: str) -> bool:
        """Whether a result of that call is waited for."""
        return any(calls[0].id == call_id and what not in self._results for what, calls in self._calls.items())

    def answered(self, call_id: str, content: str, failed: bool) -> Iterator[brain_pb2.ToolResult]:
        """The result of a call, under every id by which brains asked for it."""
        for what, calls in self._calls.items():
            if calls[0].id == call_id and what not in self._results:
                self._results[what] = brain_pb2.ToolResult(id=call_id, content=content, failed=failed)
                yield from (_under(self._results[what], call.id) for call in calls)

    def close(self, call_id: str, content: str, failed: bool) -> None:
        """The same where no brain waits for it any more."""
        for _ in self.answered(call_id, content, failed):
            pass

    def unrecorded(self) -> list[Made]:
        """The calls that were answered since this was asked last."""
        made = self.made[self._recorded :]
        self._recorded += len(made)
        return made

    @property
    def made(self) -> list[Made]:
        """The calls that were answered, in the order of their answers."""
        return [(self._calls[what][0], result) for what, result in self._results.items()]


def _what(call: brain_pb2.ToolCall) -> str:
    return f"{call.name} {MessageToJson(call.arguments, sort_keys=True, indent=None)}"


def _under(result: brain_pb2.ToolResult, call_id: str) -> brain_pb2.ToolResult:
    return brain_pb2.ToolResult(id=call_id, content=result.content, failed=result.failed)
