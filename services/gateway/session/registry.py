"""All conversations of one process: opened, found, resumed, drained; as many as there is room for.

Implements `ports.Sessions`. Refuses to know what a conversation does.
"""

from __future__ import annotations

import asyncio
import secrets
from collections import OrderedDict
from collections.abc import Callable, Mapping

from common.duplex import draining_error
from common.errors import InvalidRequest, Overloaded, UnknownName
from common.stream import MAX_SESSION_ID_CHARACTERS
from common.telemetry import ConversationObserver
from services.gateway.access import keep_visit
from services.gateway.session.dialogue import Dialogue
from services.gateway.session.house import House
from services.gateway.session.ports import SessionSettings, State, Transport
from services.gateway.session.timeline import Timeline

KEPT_SESSIONS = 64  # ended ones, whose timelines can still be asked for
RETRY_AFTER_S = 5.0


def _nothing() -> None:
    """It was over before it was counted."""


class Registry:
    """See the module."""

    def __init__(self, house: House, observer: ConversationObserver) -> None:
        self._house = house
        self._observer = observer
        self._sessions: dict[str, Dialogue] = {}
        self._tokens: dict[str, Dialogue] = {}
        self._visits: dict[str, Callable[[], None]] = {}  # each counts against whose key opened it
        self._past: OrderedDict[str, Mapping[int, Timeline]] = OrderedDict()
        self._is_draining = False
        self._changed = asyncio.Event()
        self._tell()

    @property
    def all(self) -> list[Dialogue]:
        """Oldest first."""
        return list(self._sessions.values())

    def open(
        self, transport: Transport, settings: SessionSettings, *, session_id: str = "", resume_token: str = ""
    ) -> Dialogue:
        """See `ports.Sessions`."""
        if resume_token:
            return self._resume(transport, settings, session_id, resume_token)
        if self._is_draining:
            raise draining_error()
        if len(session_id) > MAX_SESSION_ID_CHARACTERS:
            raise InvalidRequest(f"session_id holds at most {MAX_SESSION_ID_CHARACTERS} characters.")
        if session_id in self._sessions:
            raise InvalidRequest("There is a session of that id; its resume_token takes it up.", field="session_id")
        limit = self._house.numbers.max_sessions
        if len(self._sessions) >= limit:
            raise Overloaded(f"{limit} conversations are held here already.", retry_after_s=RETRY_AFTER_S)
        session_id = session_id or secrets.token_hex(12)
        dialogue = Dialogue(self._house, session_id, secrets.token_urlsafe(24), settings, self._forget)
        self._sessions[session_id] = dialogue
        self._tokens[dialogue.resume_token] = dialogue
        self._tell()
        dialogue.attach(transport)
        self._visits[session_id] = keep_visit()
        return dialogue

    def _resume(self, transport: Transport, settings: SessionSettings, session_id: str, token: str) -> Dialogue:
        dialogue = self._tokens.get(token)
        if dialogue is None or dialogue.state is State.CLOSING:
            raise UnknownName("No session waits for that resume_token; it may have ended.", name="resume_token")
        if session_id and session_id != dialogue.session_id:
            raise InvalidRequest("That resume_token belongs to another session.", field="session_id")
        dialogue.update(settings)
        dialogue.attach(transport)
        self._visits[dialogue.session_id]()
        self._visits[dialogue.session_id] = keep_visit()
        return dialogue

    def find(self, session_id: str) -> Dialogue:
        """That session. `UnknownName` when there is none."""
        dialogue = self._sessions.get(session_id)
        if dialogue is None:
            raise UnknownName("There is no session of that id here.", name="session_id")
        return dialogue

    def timeline(self, session_id: str, turn: int) -> Timeline:
        """That turn's, also of a session that ended lately. `UnknownName` when it is not known."""
        dialogue = self._sessions.get(session_id)
        kept = self._past.get(session_id, {}) if dialogue is None else dialogue.person.timelines
        if turn not in kept:
            raise UnknownName("That turn is not known, or was forgotten.", name="turn")
        return kept[turn]

    async def drain(self) -> None:
        """No new ones; return when all have finished what they say, and ended."""
        self._is_draining = True
        for dialogue in self.all:
            dialogue.drain()
        while self._sessions:
            self._changed.clear()
            await self._changed.wait()

    async def close(self) -> None:
        """All of them end now."""
        self._is_draining = True
        if self._sessions:
            async with asyncio.TaskGroup() as group:
                for dialogue in self.all:
                    group.create_task(dialogue.close("the gateway ends"))

    def _forget(self, dialogue: Dialogue) -> None:
        self._sessions.pop(dialogue.session_id, None)
        self._visits.pop(dialogue.session_id, _nothing)()
        self._tokens.pop(dialogue.resume_token, None)
        self._past[dialogue.session_id] = dialogue.person.timelines
        while len(self._past) > KEPT_SESSIONS:
            self._past.popitem(last=False)
        self._tell()
        self._changed.set()

    def _tell(self) -> None:
        self._observer.sessions(len(self._sessions), self._house.numbers.max_sessions)
