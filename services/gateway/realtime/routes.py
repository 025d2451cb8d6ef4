"""Conversation over HTTP: the page, the WebSocket, WebRTC calls, what sessions there are, and where their time goes."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from aiohttp import web

from common.errors import MeshError, NotReady, UnknownName
from services.gateway.access.http_door import KNOWN_ORIGIN
from services.gateway.openai_speech import Refused
from services.gateway.realtime.calls import Calls
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
        self._call_desk: Calls | None = None

    def add(self, app: web.Application) -> None:
        router = app.router
        router.add_get("/", self._page)
        router.add_get("/latency", self._page)
        router.add_get("/page/{path:.+}", self._page)
        router.add_get("/v1/realtime", self._socket)
        router.add_get("/v1/realtime/ice", self._ice)
        router.add_get("/v1/latency", self._latency)
        router.add_get("/v1/sessions", self._list_sessions)
        router.add_get("/v1/sessions/{session_id}/timeline", self._timeline)
        for path in ("/v1/realtime/calls", "/whip"):
            router.add_post(path, self._call)
            router.add_delete(f"{path}/{{call_id}}", self._hang_up)

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

    async def _call(self, request: web.Request) -> web.Response:
        check_origin(request)
        return await self._calls().create(request, await self._offer(), self._ice_servers())

    async def _hang_up(self, request: web.Request) -> web.Response:
        check_origin(request)
        return await self._calls().delete(request)

    async def _ice(self, request: web.Request) -> web.Response:
        """What the page gives its `RTCPeerConnection`."""
        check_origin(request)
        return web.json_response({"iceServers": self._ice_servers()}, headers={"Cache-Control": "no-store"})

    async def _latency(self, request: web.Request) -> web.Response:
        """The last turns by stage, and their quantiles; 304 while nothing has changed."""
        check_origin(request)
        known = self._known()
        board = self._gateway.board
        stages = stage_cards(self._gateway.stages)
        tag = f"{board.version}.{len(known)}.{hash(str(stages)) & 0xFFFFFFFF:x}"
        headers = {"ETag": f'"{tag}"', "Cache-Control": "no-cache"}
        if request.headers.get("If-None-Match") == f'"{tag}"':
            return web.Response(status=304, headers=headers)
        sessions = {"active": len(known), "limit": self._config.max_sessions}
        facts = {"sessions": sessions, "stages": stages, "summary": board.summary(), "turns": board.turns()}
        return web.json_response(facts, headers=headers)

    async def _list_sessions(self, request: web.Request) -> web.Response:
        check_origin(request)
        return web.json_response({"sessions": [session_card(session) for session in self._known()]})

    async def _timeline(self, request: web.Request) -> web.Response:
        """The turns of one session, also of one that ended lately."""
        check_origin(request)
        session_id = request.match_info["session_id"]
        turns = self._gateway.board.turns(session_id)
        if not turns and all(session.session_id != session_id for session in self._known()):
            raise UnknownName("There is no session of that id here.", name="session_id")
        return web.json_response({"session_id": session_id, "turns": turns})

    def _known(self) -> list[Any]:
        return list(getattr(self._gateway.sessions, "all", ()))

    def _calls(self) -> Calls:
        """Made with the first call, when everything that it needs is there."""
        if self._call_desk is None:
            if self._gateway.webrtc is None:
                raise NotReady("WebRTC is not offered by this gateway.")
            self._call_desk = Calls(self._gateway.webrtc, self._sessions(), self._gateway.time)
        return self._call_desk

    def _ice_servers(self) -> list[dict[str, str]]:
        webrtc = self._gateway.webrtc
        return [] if webrtc is None else webrtc.network.for_clients(time.time())

    def _sessions(self) -> Sessions:
        if self._gateway.sessions is None:
            raise NotReady("Conversation is not offered by this gateway.")
        return self._gateway.sessions

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


def stage_cards(stages: Any) -> list[dict[str, Any]]:
    """Each stage as the gateway sees it: replicas that answer, and their slots."""
    cards = []
    for name in ("brain", "tts_lm", "codec"):
        replicas = getattr(stages, name).all
        up = [replica for replica in replicas if replica.info is not None and not replica.is_suspect]
        free, slots = sum(max(0, one.free_slots) for one in up), sum(one.info.slot_count for one in up)
        card = {"stage": name, "replicas": len(replicas), "up": len(up), "free_slots": free, "slots": slots}
        cards.append(card)
    return cards


def session_card(session: Any) -> dict[str, Any]:
    """A session as `/v1/sessions` lists it: nothing that would let anybody take it over."""
    return {
        "session_id": session.session_id,
        "state": str(session.state),
        "turn": session.turn,
        "epoch": session.epoch,
        "transport": session.kind,
        "start_time": session.begun_s,
    }


def check_origin(request: web.Request) -> None:
    """A browser tells which page a request comes from; those of other origins are refused."""
    if request.get(KNOWN_ORIGIN):
        return
    origin = request.headers.get("Origin")
    if origin and urlsplit(origin).netloc != request.host:
        raise Refused("Pages of other origins may not converse here.", None, "origin", 403)
