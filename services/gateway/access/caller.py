"""Who calls, and what they may do. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from services.gateway.access.limits import UNLIMITED, Limits

SPEECH = "speech"
CONVERSATION = "conversation"
OPERATE = "operate"
"""To see and to steer the sessions of others."""
SCOPES = frozenset({SPEECH, CONVERSATION, OPERATE})
TALKING = frozenset({SPEECH, CONVERSATION})
"""What a caller may do whom nobody said it of."""

_OPERATING = frozenset({"ListSessions", "GetSession", "GetTimeline", "Say", "Interrupt"})


@dataclass(frozen=True)
class Caller:
    """One who was let in. `name` is safe to log: it holds nothing that opens a door."""

    name: str
    scopes: frozenset[str] = TALKING
    limits: Limits = UNLIMITED


def scope_of_method(method: str) -> str:
    """What a gRPC method, such as /voicemesh.gateway.v1.SpeechService/Synthesize, needs."""
    service, _, name = method.removeprefix("/").partition("/")
    if not service.endswith(".ConversationService"):
        return SPEECH
    return OPERATE if name in _OPERATING else CONVERSATION


def scope_of_path(path: str) -> str | None:
    """What a path of HTTP needs; None for what everybody may have: health, and the page, which holds no secrets and
    has to be there before it can ask for a key."""
    if path.startswith(("/v1/audio/", "/v1/models")):
        return SPEECH
    if path.startswith(("/v1/realtime", "/whip")):
        return CONVERSATION
    is_open = path in ("/", "/healthz", "/readyz", "/favicon.ico", "/latency") or path.startswith("/page/")
    return None if is_open else OPERATE
