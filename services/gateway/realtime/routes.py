"""Conversation over HTTP: the page, the WebSocket, WebRTC calls, what sessions there are, and where their time goes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from aiohttp import web

from common.errors import MeshError, NotReady
from services.gateway.openai_speech import Refused
from services.gateway.realtime.files import page_files, sent
from services.gateway.realtime.settings import Offer
from services.gateway.realtime.socket import serve_realtime
from services.gateway.session.ports import Sessions, SessionSettings

if TYPE_CHECKING:
    from services.gateway.config import GatewayConfig
    from services.gateway.server import Gateway


class RealtimeRoutes:
    """Put them into an application with `add`."""

    def __init__(self, config: GatewayConfig, gateway: Gateway) -> None:
        self._config = config
        self._gateway = gateway
        self._files = page_files()

    def add(self, app: web.Application) -> None:
        router = app.router
        router.add_get("/", self._page)
        router.add_get("/latency", self._page)
        router.add_get("/page/{path:.+}", self._page)
        router.add_get("/v1/realtime", self._socket)

    async def _page(self, request: web.Request) -> web.Response:
        path = request.match_info.get("path") or ("latency.html" if request.path == "/latency" else "index.html")
        file = self._files.get(path)
        if file is None:
            raise web.HTTPNotFound
        return sent(request, file)

    async def _socket(self, request: web.Request) -> web.StreamResponse:
        check_origin(request)
        return await serve_realtime(
            request, self._sessions(), await self._offer(), SessionSettings(), self._gateway.time
        )

    def _sessions(self) -> Sessions:
        sessions: Sessions | None = getattr(self._gateway, "sessions", None)
        if sessions is None:
            raise NotReady("Conversation is not offered by this gateway.")
        return sessions

    async def _offer(self) -> Offer:
        """What can be asked for. While the speech stage is away a session can be opened all the same."""
        stages = self._gateway.stages
        try:
            voices = tuple(voice.name for voice in await stages.voices())
        except MeshError:
            voices = ()
        info: Any = stages.tts_lm.info
        model_id, languages = (info.model_id, tuple(info.languages)) if info is not None else ("voicemesh", ())
        return Offer(model_id, voices, self._config.voice_aliases, languages)


def check_origin(request: web.Request) -> None:
    """A browser tells which page a request comes from; those of other origins are refused."""
    origin = request.headers.get("Origin")
    if origin and urlsplit(origin).netloc != request.host:
        raise Refused("Pages of other origins may not converse here.", None, "origin", 403)
