"""The page's own files, with headers that let it load nothing from anywhere else. Read once, at start."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from aiohttp import web

PAGE = Path(__file__).parent / "page"
_TYPES = {
    ".html": "text/html",
    ".js": "text/javascript",
    ".css": "text/css",
    ".svg": "image/svg+xml",
    ".txt": "text/plain",
    ".json": "application/json",
}
_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
        "media-src 'self' blob:; worker-src 'self'; manifest-src 'self'; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'"
    ),
    "Permissions-Policy": "microphone=(self), speaker-selection=(self), camera=(), geolocation=()",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-cache",
}


@dataclass(frozen=True)
class PageFile:
    """A file as it is sent."""

    body: bytes
    content_type: str
    tag: str


def page_files(directory: Path = PAGE) -> Mapping[str, PageFile]:
    """Every file by its path below the page: `app.js`, `latency.html`."""
    found = {}
    for path in sorted(directory.rglob("*")):
        if path.is_file() and path.suffix in _TYPES:
            body = path.read_bytes()
            tag = hashlib.sha256(body).hexdigest()[:16]
            found[path.relative_to(directory).as_posix()] = PageFile(body, _TYPES[path.suffix], tag)
    return found


def sent(request: web.Request, file: PageFile) -> web.Response:
    """The file, or word that the browser has it already."""
    if request.headers.get("If-None-Match") == f'"{file.tag}"':
        return web.Response(status=304, headers=_HEADERS)
    headers = {**_HEADERS, "ETag": f'"{file.tag}"'}
    return web.Response(body=file.body, content_type=file.content_type, charset="utf-8", headers=headers)
