"""A conversation that only notes what it is asked, a house full of them, and what a client of `Link` was sent."""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from common.errors import MeshError, Overloaded, UnknownName
from services.gateway.session.ports import SessionEvent, SessionSettings, State, Transport


class NotedConversation:
    """`asked` is what was asked of it, in order; `raising` is raised by the next call that may."""

    def __init__(self, transport: Transport, settings: SessionSettings, session_id: str = "session") -> None:
        self.transport = transport
        self.settings = settings
        self.session_id = session_id
        self.resume_token = f"token of {session_id}"
        self.state = State.LISTENING
        self.kind = transport.kind
        self.begun_s = 0.0
        self.epoch = 0
        self.turn = 0
        self.asked: list[tuple[Any, ...]] = []
        self.heard: list[Any] = []
        self.raising: MeshError | None = None

    def hear(self, samples: Any, arrived_s: float) -> None:
        self.heard.append(samples)

    def type(self, text: str) -> None:
        self._note("type", text)

    def commit(self) -> None:
        self._note("commit", sum(len(piece) for piece in self.heard))

    def clear(self) -> None:
        self._note("clear")

    def interrupt(self) -> tuple[int, str]:
        self._note("interrupt")
        return 0, ""

    def say(self, text: str, interruptible: bool) -> int:
        self._note("say", text, interruptible)
        return 1

    def tool_result(self, call_id: str, content: str, failed: bool) -> None:
        self._note("tool_result", call_id, content, failed)

    def report_playback(self, heard_sample_offset: int | None, client_buffer_s: float | None) -> None:
        self._note("report_playback", heard_sample_offset, client_buffer_s)

    def report_first_audible(self, epoch: int, heard_s: float) -> None:
        self._note("report_first_audible", epoch, heard_s)

    def report_first_opus(self, epoch: int, encoded_s: float) -> None:
        """Of no account here."""

    def update(self, settings: SessionSettings) -> None:
        self.settings = settings
        self._note("update")

    def suspend(self) -> None:
        self._note("suspend")

    def attach(self, transport: Transport) -> None:
        self.transport = transport
        self._note("attach")

    async def close(self, reason: str) -> None:
        self._note("close", reason)
        await self.transport.close(reason)

    def tell(self, *events: SessionEvent) -> None:
        for event in events:
            self.transport.tell(event)

    def _note(self, *what: Any) -> None:
        self.asked.append(what)
        if self.raising is not None:
            error, self.raising = self.raising, None
            raise error


class NotedSessions:
    """Opens up to `limit` conversations."""

    kind: type[NotedConversation] = NotedConversation

    def __init__(self, limit: int = 8) -> None:
        self.limit = limit
        self.all: list[NotedConversation] = []

    def open(
        self, transport: Transport, settings: SessionSettings, *, session_id: str = "", resume_token: str = ""
    ) -> NotedConversation:
        if resume_token:
            for conversation in self.all:
                if conversation.resume_token == resume_token:
                    conversation.attach(transport)
                    return conversation
            raise UnknownName("There is no session of that token here.")
        if len(self.all) >= self.limit:
            raise Overloaded(f"All {self.limit} conversations of this gateway are taken.", retry_after_s=3.0)
        self.all.append(self.kind(transport, settings, session_id or f"session-{len(self.all)}"))
        return self.all[-1]


class Wire:
    """What was sent to a client."""

    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []

    def send(self, text: str) -> None:
        self.events.append(json.loads(text))

    def types(self) -> list[str]:
        return [event["type"] for event in self.events]

    def of(self, kind: str) -> list[dict[str, Any]]:
        return [event for event in self.events if event["type"] == kind]

    def take(self) -> list[dict[str, Any]]:
        taken, self.events = self.events, []
        return taken


def tone(seconds: float, rate_hz: int) -> Any:
    """440 Hz at half of full scale, int16."""
    return np.round(16384 * np.sin(2 * np.pi * 440 * np.arange(round(seconds * rate_hz)) / rate_hz)).astype(np.int16)
