"""Calls by WebRTC over HTTP: OpenAI's `POST /v1/realtime/calls` and WHIP (RFC 9725). The same call either way.

Knows SDP as a text and sessions by their seam; what an offer means is `media.webrtc`'s.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from aiohttp import BodyPartReader, web

from services.gateway.openai_speech import Refused
from services.gateway.realtime.commands import MAX_TEXT_CHARACTERS, Refusal, Update, command_of
from services.gateway.realtime.link import Link
from services.gateway.realtime.settings import Offer, updated
from services.gateway.session.ports import Conversation, Sessions, SessionSettings, Transport

if TYPE_CHECKING:
    from services.gateway.media.webrtc import Accepted, LinkOf, Open

MAX_SDP_BYTES = 1 << 16
MAX_SESSION_BYTES = 4 * MAX_TEXT_CHARACTERS
SDP = "application/sdp"
RESUME = "Voicemesh-Resume-Token"


class Media(Protocol):
    """`media.webrtc.WebRtc`."""

    async def accept(self, offer: str, open_conversation: Open, link_of: LinkOf) -> Accepted: ...


@dataclass(frozen=True)
class _Call:
    conversation: Conversation
    transport: Transport
    tag: str


class Calls:
    """The calls of one process. A call's address is a secret of its caller: who knows it can hang up."""

    def __init__(self, media: Media, sessions: Sessions, time: Callable[[], float]) -> None:
        self._media = media
        self._sessions = sessions
        self._time = time
        self._calls: dict[str, _Call] = {}

    async def create(self, request: web.Request, offer: Offer, ice_servers: list[dict[str, str]]) -> web.Response:
        """Answer an offer. Raises `Refused`, and the `MeshError` of a full or draining house or a wrong offer."""
        sdp, session = await _asked(request)
        settings = SessionSettings()
        if session:
            try:
                settings = updated(settings, _session(session), offer)
            except Refusal as refusal:
                raise Refused(refusal.message, refusal.param, refusal.code) from None
        token = request.headers.get(RESUME, "")

        def open_conversation(transport: Transport) -> Conversation:
            return self._sessions.open(transport, settings, resume_token=token)

        def link_of(send: Callable[[str], None]) -> Link:
            return Link(send, offer, settings, self._time)

        accepted = await self._media.accept(sdp, open_conversation, link_of)
        return self._created(request, accepted, ice_servers)

    def _created(self, request: web.Request, accepted: Accepted, ice_servers: list[dict[str, str]]) -> web.Response:
        self._forget_closed()
        call_id = f"rtc_{secrets.token_urlsafe(18)}"
        tag = hashlib.sha256(accepted.answer.encode()).hexdigest()[:16]
        self._calls[call_id] = _Call(accepted.conversation, accepted.peer, tag)
        headers = {"Location": f"{request.path.rstrip('/')}/{call_id}", "ETag": f'"{tag}"', "Cache-Control": "no-store"}
        response = web.Response(status=201, text=accepted.answer, content_type=SDP, headers=headers)
        for server in ice_servers:  # RFC 9725 4.6
            link = f'<{server["urls"]}>; rel="ice-server"'
            if "username" in server:
                link += f'; username="{server["username"]}"; credential="{server["credential"]}"'
                link += '; credential-type="password"'
            response.headers.add("Link", link)
        return response

    async def delete(self, request: web.Request) -> web.Response:
        """Hang up."""
        call = self._calls.pop(request.match_info["call_id"], None)
        if call is None:
            raise Refused("There is no such call here.", None, "not_found", 404)
        await asyncio.shield(call.conversation.close("the client hung up"))
        return web.Response()

    def _forget_closed(self) -> None:
        """Calls whose transport is gone; their session may wait for another."""
        gone = [call_id for call_id, call in self._calls.items() if getattr(call.transport, "closed", False)]
        for call_id in gone:
            del self._calls[call_id]


def _session(text: str) -> Mapping[str, Any]:
    """The session of an offer is read as that of `session.update` is."""
    try:
        message = json.dumps({"type": "session.update", "session": json.loads(text)})
    except (ValueError, RecursionError):
        raise Refusal("'session' is not JSON.", "invalid_json", "session") from None
    command, _ = command_of(message)
    assert isinstance(command, Update)
    return command.session


async def _asked(request: web.Request) -> tuple[str, str]:
    """The offer and, when it comes in a form as OpenAI's client sends it, the session as JSON."""
    if request.content_type == SDP:
        return _text(await _whole(request.content, MAX_SDP_BYTES)), ""
    if request.content_type != "multipart/form-data":
        raise Refused(f"The body must be {SDP} or a form with 'sdp'.", None, "unsupported_media_type", 415)
    parts = {"sdp": "", "session": ""}
    try:
        async for part in await request.multipart():
            if isinstance(part, BodyPartReader) and part.name in parts:
                limit = MAX_SDP_BYTES if part.name == "sdp" else MAX_SESSION_BYTES
                parts[part.name] = _text(await _whole(part, limit))
    except ValueError:
        raise Refused("The form cannot be read.", None, "invalid_form") from None
    return parts["sdp"], parts["session"]


async def _whole(source: Any, limit: int) -> bytes:
    """All of a body, or a refusal as soon as it is too long."""
    read = source.read_chunk if isinstance(source, BodyPartReader) else source.read
    body = b""
    while piece := await read(8192):
        body += piece
        if len(body) > limit:
            raise Refused(f"At most {limit} bytes are taken.", None, "too_large", 413)
    return body


def _text(body: bytes) -> str:
    try:
        return body.decode()
    except UnicodeDecodeError:
        raise Refused("That is no text.", None, "invalid_value") from None
