"""The gateway's door: who calls, whether they may, and how much they have taken. Over gRPC and HTTP alike.

    with door.admit(shown, scope) as visit:      # AccessDenied, Overloaded
        visit.text(len(text))                    # Overloaded when the minute's text is used up

Refusals are logged with who and why, never with what was shown: once a second for each reason, with how many there
were, so that a flood of them is one line.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

from common.errors import AccessDenied, Overloaded
from services.gateway.access.caller import Caller
from services.gateway.access.keys import KeyRing
from services.gateway.access.limits import UNLIMITED, Ledger, Ledgers, Limits
from services.gateway.access.tokens import MAX_TOKEN_CHARACTERS, LiveKitTokens, Tokens

logger = logging.getLogger(__name__)
LOG_EVERY_S = 1.0
MAX_REASONS = 1000
SUBPROTOCOL = "openai-insecure-api-key."
"""How a browser shows a key to a WebSocket, in OpenAI's words: as one of the subprotocols it asks for."""


@dataclass(frozen=True)
class Shown:
    """What a caller showed. Never printed."""

    secret: str = ""
    certificate_name: str = ""  # of a client certificate that was verified
    peer: str = ""

    def __repr__(self) -> str:
        return f"Shown(peer={self.peer!r})"


def secret_of(headers: Mapping[str, str]) -> str:
    """The key or token among headers whose names are in lower case; empty when there is none."""
    kind, _, secret = headers.get("authorization", "").strip().partition(" ")
    if kind.lower() == "bearer" and secret.strip():
        return secret.strip()
    if headers.get("x-api-key"):
        return headers["x-api-key"]
    asked = map(str.strip, headers.get("sec-websocket-protocol", "").split(","))
    return next((word.removeprefix(SUBPROTOCOL) for word in asked if word.startswith(SUBPROTOCOL)), "")


class Visit:
    """One call of a caller that was let in."""

    def __init__(self, caller: Caller, ledger: Ledger | None, time_s: Callable[[], float], log: RefusalLog) -> None:
        self.caller = caller
        self._ledger = ledger
        self._time_s = time_s
        self._log = log
        self._is_kept = False

    def keep(self) -> Callable[[], None]:
        """What began in this call goes on when the call is over, and counts as its session until it is let go of:
        call what this returns, once or more."""
        if self._is_kept or self._ledger is None:
            return _nothing
        self._is_kept = True
        held: list[Ledger] = [self._ledger]

        def let_go() -> None:
            if held:
                held.pop().leave()

        return let_go

    def leave(self) -> None:
        """The call is over."""
        if self._ledger is not None and not self._is_kept:
            self._ledger.leave()

    def text(self, characters: int) -> None:
        """So many characters more are to be spoken, or to be thought about."""
        if self._ledger is None:
            return
        try:
            self._ledger.text(characters, self._time_s())
        except Overloaded as error:
            self._log.refused(self.caller.name, error.metadata.get("limit", ""), "")
            raise


def _nothing() -> None:
    """Nobody counts."""


_visit: ContextVar[Visit | None] = ContextVar("visit", default=None)


def spend_text(characters: int) -> None:
    """Count text against whoever calls now; nothing to count where nobody had to show anything."""
    visit = _visit.get()
    if visit is not None:
        visit.text(characters)


def keep_visit() -> Callable[[], None]:
    """For what outlives its call, such as a conversation: see `Visit.keep`."""
    visit = _visit.get()
    return _nothing if visit is None else visit.keep()


class Door:
    """`time_s` is any monotonic clock."""

    def __init__(
        self,
        time_s: Callable[[], float],
        keys: KeyRing | None = None,
        tokens: Tokens | None = None,
        livekit: LiveKitTokens | None = None,
        *,
        wants_certificate: bool = False,
        limits: Limits = UNLIMITED,
    ) -> None:
        self._time_s = time_s
        self._keys = keys if keys is not None and len(keys) else None
        self._tokens = tokens
        self._livekit = livekit
        self._wants_certificate = wants_certificate
        self._limits = limits
        self._ledgers = Ledgers()
        self._log = RefusalLog(time_s)

    @property
    def wants_secret(self) -> bool:
        """Whether a caller must show a key or a token."""
        return any((self._keys, self._tokens, self._livekit))

    @property
    def is_open(self) -> bool:
        """Whether anybody may come in."""
        return not (self.wants_secret or self._wants_certificate)

    @contextmanager
    def admit(self, shown: Shown, scope: str) -> Iterator[Visit]:
        """One call, from its admission to its end. `AccessDenied` or `Overloaded` when it may not begin."""
        caller = self._known(shown)
        if scope not in caller.scopes:
            self._log.refused(caller.name, "scope", shown.peer)
            raise AccessDenied("This key does not allow that.", scope=scope)
        ledger = self._ledgers.of(caller.name, caller.limits, self._time_s())
        try:
            ledger.call(self._time_s())
            ledger.enter()
        except Overloaded as error:
            self._log.refused(caller.name, error.metadata.get("limit", ""), shown.peer)
            raise
        visit = Visit(caller, ledger, self._time_s, self._log)
        token = _visit.set(visit)
        try:
            yield visit
        finally:
            _visit.reset(token)
            visit.leave()

    def _known(self, shown: Shown) -> Caller:
        if not self.wants_secret:
            return Caller(f"certificate:{shown.certificate_name}", limits=self._limits)
        try:
            return self._of_secret(shown.secret)
        except AccessDenied as error:
            self._log.refused("", error.metadata.get("why", "unknown"), shown.peer)
            raise

    def _of_secret(self, secret: str) -> Caller:
        if not secret:
            raise AccessDenied("Show a key: `Authorization: Bearer …`.", why="nothing shown")
        if len(secret) > MAX_TOKEN_CHARACTERS:
            raise AccessDenied("This key is not known here.")
        if secret.count(".") == 2 and (self._tokens or self._livekit):
            if self._livekit is not None and self._livekit.is_one(secret):
                return self._livekit.caller(secret)
            if self._tokens is not None:
                return self._tokens.caller(secret)
        caller = None if self._keys is None else self._keys.caller(secret)
        if caller is None:
            raise AccessDenied("This key is not known here.")
        return caller


class RefusalLog:
    """One line a second for each reason, whatever comes."""

    def __init__(self, time_s: Callable[[], float]) -> None:
        self._time_s = time_s
        self._since: dict[tuple[str, str], tuple[float, int]] = {}

    def refused(self, caller: str, why: str, peer: str) -> None:
        """Somebody was."""
        now_s = self._time_s()
        told_s, untold = self._since.get((caller, why), (now_s - LOG_EVERY_S, 0))
        if now_s - told_s < LOG_EVERY_S:
            self._since[caller, why] = (told_s, untold + 1)
            return
        if len(self._since) >= MAX_REASONS:
            self._since.clear()
        self._since[caller, why] = (now_s, 0)
        logger.warning("refused", extra={"caller": caller, "why": why, "peer": peer, "refused_before": untold})
