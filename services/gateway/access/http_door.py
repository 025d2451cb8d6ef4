"""The door over HTTP and WebSocket, and which pages may knock."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection
from urllib.parse import urlsplit

from aiohttp import web

from common.errors import MeshError
from services.gateway.access.caller import scope_of_path
from services.gateway.access.config import AccessConfig, is_loopback
from services.gateway.access.door import Door, Shown, secret_of

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
KNOWN_ORIGIN = web.RequestKey("known_origin", bool)
"""Under this key of a request: it comes from no page, or from one that may call."""
_METHODS = "GET, POST, PATCH, DELETE"
_HEADERS = "Authorization, Content-Type, X-Api-Key, Voicemesh-Resume-Token, traceparent, tracestate"
_SHOWN = "Location, ETag, Link, Retry-After, X-Voicemesh-Seed"


class StrangePage(MeshError):
    """A page of another origin wants to call."""

    status = "PERMISSION_DENIED"
    default_reason = "ACCESS_DENIED"


class HttpDoor:
    """`middleware` belongs inside the one that makes statuses of faults."""

    def __init__(self, door: Door, config: AccessConfig) -> None:
        self._door = door
        self._origins = frozenset(origin.rstrip("/").lower() for origin in config.allowed_origins)
        self._listens_here = is_loopback(config.host)

    @web.middleware
    async def middleware(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        origin = request.headers.get("Origin", "")
        request[KNOWN_ORIGIN] = not origin or self._knows(origin, request.host)
        if not request[KNOWN_ORIGIN] and _does_something(request):
            raise StrangePage("Pages of other origins may not call this gateway.")
        if request.method == "OPTIONS" and request[KNOWN_ORIGIN] and origin:
            return web.Response(status=204, headers=_cors(origin) | _preflight())
        response = await self._admitted(request, handler)
        if origin.rstrip("/").lower() in self._origins and not response.prepared:
            response.headers.update(_cors(origin))
        return response

    async def _admitted(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        scope = scope_of_path(request.path)
        if scope is None or self._door.is_open:
            return await handler(request)
        headers = {key.lower(): value for key, value in request.headers.items()}
        shown = Shown(secret_of(headers), _certificate_name(request), request.remote or "")
        with self._door.admit(shown, scope):
            return await handler(request)

    def _knows(self, origin: str, host: str) -> bool:
        """Our own page, as the browser spells where it found it, or one that was named. A gateway on this machine only
        is nobody's `Host` but this machine's: a page elsewhere can give our address a name of its own."""
        if origin.rstrip("/").lower() in self._origins:
            return True
        if urlsplit(origin).netloc.lower() != host.lower():
            return False
        return not self._listens_here or is_loopback(_name_of(host))


def _does_something(request: web.Request) -> bool:
    """A page reads no answer of another origin unless we say so; but what it sends is done."""
    return request.method not in ("GET", "HEAD") or request.headers.get("Upgrade", "").lower() == "websocket"


def _name_of(host: str) -> str:
    return urlsplit(f"//{host}").hostname or ""


def _certificate_name(request: web.Request) -> str:
    certificate = None if request.transport is None else request.transport.get_extra_info("peercert")
    subject: Collection[Collection[tuple[str, str]]] = (certificate or {}).get("subject", ())
    return next((value for part in subject for key, value in part if key == "commonName"), "")


def _cors(origin: str) -> dict[str, str]:
    return {"Access-Control-Allow-Origin": origin, "Access-Control-Expose-Headers": _SHOWN, "Vary": "Origin"}


def _preflight() -> dict[str, str]:
    return {
        "Access-Control-Allow-Methods": _METHODS,
        "Access-Control-Allow-Headers": _HEADERS,
        "Access-Control-Max-Age": "600",
    }
