"""The gateway over HTTP: OpenAI's speech endpoint, the WebSocket for text as it comes, voices, models, health.

The only file that serves aiohttp. A caller who hangs up cancels its handler, and that stops both stages at once.
"""

from __future__ import annotations

import errno
import json
import logging
from collections.abc import Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from aiohttp import web
from voicemesh.tts_lm.v1 import tts_lm_pb2

from common.duplex import Edge
from common.errors import MeshError, Overloaded
from common.serving import PortTaken, Server, draining_error
from common.stream import FinishReason
from common.telemetry import Milestone, SpanName, Work
from services.gateway import openai_speech as openai
from services.gateway.access import Door, spend_text
from services.gateway.access.http_door import HttpDoor
from services.gateway.access.tls import http_tls
from services.gateway.audio_files import AudioFile, audio_file
from services.gateway.config import GatewayConfig
from services.gateway.realtime.routes import RealtimeRoutes
from services.gateway.running import running
from services.gateway.speech_socket import serve_socket
from services.gateway.utterance import Sound, SpeechEnded, SpeechUtterance, Started

if TYPE_CHECKING:
    from services.gateway.server import Gateway

logger = logging.getLogger(__name__)
VOICES_KEPT_S = 10.0
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class HttpServer:
    """Serve it with `start`, end it with `close`."""

    def __init__(self, config: GatewayConfig, gateway: Gateway, server: Server, edge: Edge, door: Door) -> None:
        self._config = config
        self._gateway = gateway
        self._server = server
        self._edge = edge
        self._door = HttpDoor(door, config)
        self._running = 0
        self._voices: tuple[float, tuple[tts_lm_pb2.VoiceInfo, ...]] = (0.0, ())
        self._runner: web.AppRunner | None = None

    async def start(self) -> None:
        """Listen. `PortTaken` when somebody else does."""
        app = web.Application(
            middlewares=[_faults, self._door.middleware], client_max_size=self._config.max_request_bytes
        )
        app.router.add_post("/v1/audio/speech", self._speech)
        app.router.add_get("/v1/audio/speech/stream", self._stream)
        app.router.add_get("/v1/audio/voices", self._list_voices)
        app.router.add_get("/v1/models", self._list_models)
        app.router.add_get("/v1/models/{model:.+}", self._model)
        app.router.add_get("/healthz", self._alive)
        app.router.add_get("/readyz", self._ready)
        RealtimeRoutes(self._config, self._gateway).add(app)
        # Without it a handler learns of a caller that left only when it next writes.
        self._runner = web.AppRunner(
            app, handler_cancellation=True, access_log=None, shutdown_timeout=self._config.drain_deadline_s
        )
        await self._runner.setup()
        host, port, tls = self._config.host, self._config.http_port, http_tls(self._config)
        try:
            await web.TCPSite(self._runner, host, port, ssl_context=tls).start()
        except OSError as error:
            why = "is taken by another program" if error.errno == errno.EADDRINUSE else f"fails: {error.strerror}"
            raise PortTaken(f"Port {port} on {host} for HTTP {why}.") from None
        scheme = "http" if tls is None else "https"
        self._server.announcement["http"] = f"{scheme}://{_joined(host, self.port)}"

    @property
    def port(self) -> int:
        """The port that is listened on."""
        assert self._runner is not None, "it was started"
        return int(self._runner.addresses[0][1])

    async def close(self) -> None:
        """Take no more, let what runs finish within the drain deadline."""
        if self._runner is not None:
            await self._runner.cleanup()

    # Speech.

    async def _speech(self, request: web.Request) -> web.StreamResponse:
        if request.content_type != "application/json":  # a page of another origin could not send this unasked
            raise openai.Refused("The body must be application/json.", None, "unsupported_media_type", 415)
        try:
            body = json.loads(await request.read())
        except (ValueError, RecursionError):
            raise openai.Refused("The body is not JSON.", None, "invalid_json") from None
        asked = openai.speech_request(body, await self._house())
        spend_text(len(asked.text))
        trace = (request.headers.get("traceparent", ""), request.headers.get("tracestate", ""))
        session_id = uuid4().hex
        work = self._server.telemetry.utterance(SpanName.GATEWAY_SYNTHESIZE, trace, session_id=session_id)
        end = FinishReason.CANCELLED
        try:
            async with self._admitted(), running(self._gateway.line()) as line:
                utterance = line.submit(asked.start, work.trace_parent(), session_id, work.milestone)
                utterance.feed(asked.text)
                utterance.flush()
                try:
                    response, end = await _answer(request, asked, utterance, work)
                finally:
                    utterance.cancel()
        finally:
            work.end(end.name)
        return response

    async def _stream(self, request: web.Request) -> web.StreamResponse:
        house = await self._house()
        async with self._admitted():
            return await serve_socket(request, self._edge, self._gateway.stage(), lambda: house)

    @asynccontextmanager
    async def _admitted(self) -> Any:
        if self._server.draining.is_set():
            raise draining_error()
        if self._running >= self._config.max_streams:
            raise Overloaded(f"All {self._config.max_streams} streams of this gateway are taken.", reason="NO_SLOT")
        self._running += 1
        try:
            yield
        finally:
            self._running -= 1

    # What there is.

    async def _house(self) -> openai.House:
        model = self._gateway.stages.tts_lm.info
        names = tuple(voice.name for voice in await self._known_voices())
        model_id = model.model_id if model is not None else "voicemesh"
        return openai.House(model_id, names, self._config.voice_aliases, self._config.http_max_input_characters)

    async def _known_voices(self) -> tuple[tts_lm_pb2.VoiceInfo, ...]:
        now = self._gateway.time()
        known_s, voices = self._voices
        if not known_s or now > known_s + VOICES_KEPT_S:
            voices = tuple(await self._gateway.stages.voices())
            self._voices = (now, voices)
        return voices

    async def _list_voices(self, request: web.Request) -> web.Response:
        voices, info = openai.voice_cards(await self._known_voices()), self._gateway.stages.tts_lm.info
        return web.json_response({"voices": voices, "languages": [] if info is None else list(info.languages)})

    async def _list_models(self, request: web.Request) -> web.Response:
        house = await self._house()
        return web.json_response({"object": "list", "data": [openai.model_card(house.model_id)]})

    async def _model(self, request: web.Request) -> web.Response:
        house, name = await self._house(), request.match_info["model"]
        if name != house.model_id:
            raise openai.Refused(f"There is no model '{name}' here.", "model", "model_not_found", 404)
        return web.json_response(openai.model_card(name))

    async def _alive(self, request: web.Request) -> web.Response:
        return web.json_response({"status": "alive"})

    async def _ready(self, request: web.Request) -> web.Response:
        stages = self._gateway.stages
        facts: dict[str, Any] = {"tts_lm": stages.tts_lm.is_up, "codec": stages.codec.is_up}
        facts["draining"] = self._server.draining.is_set()
        is_ready = facts["tts_lm"] and facts["codec"] and not facts["draining"]
        return web.json_response({"ready": is_ready, **facts}, status=200 if is_ready else 503)


async def _answer(
    request: web.Request, asked: openai.SpeechRequest, utterance: SpeechUtterance, work: Work
) -> tuple[web.StreamResponse, FinishReason]:
    """The response, once there is sound or an end: until then a fault can still be told as a status."""
    headers = {"Cache-Control": "no-store"}
    response: web.StreamResponse | None = None
    file = None
    async for event in utterance:
        if isinstance(event, Started):
            headers["X-Voicemesh-Seed"] = str(event.seed)
            continue
        if isinstance(event, SpeechEnded) and event.end.error is not None:
            if response is None:
                raise event.end.error
            await _break_off(request, response, asked, event.end.error)
            return response, event.end.reason
        if response is None or file is None:
            file = audio_file(asked.form, 24000 if isinstance(event, SpeechEnded) else _rate_hz(event))
            headers["Content-Type"] = "text/event-stream" if asked.as_events else file.content_type
            response = web.StreamResponse(headers=headers)
            await response.prepare(request)
            work.milestone(Milestone.CODEC_FIRST_PCM)
        await _write(response, file, asked, event)
        if isinstance(event, SpeechEnded):
            await response.write_eof()
            return response, event.end.reason
    raise AssertionError("an utterance's events end with how it ended")


async def _write(
    response: web.StreamResponse, file: AudioFile, asked: openai.SpeechRequest, event: Sound | SpeechEnded
) -> None:
    piece = file.push(event.chunk.payload) if isinstance(event, Sound) else file.finish()
    if piece:
        await response.write(openai.delta_event(piece) if asked.as_events else piece)
    if isinstance(event, SpeechEnded) and asked.as_events:
        end = event.end
        await response.write(openai.done_event(end.text_token_count, end.frame_count, end.reason.name))


async def _break_off(
    request: web.Request, response: web.StreamResponse, asked: openai.SpeechRequest, error: MeshError
) -> None:
    """After sound was sent, a fault must not look like its end: an event says it, or the connection breaks."""
    logger.warning("speech broke off", extra={"reason": error.reason})
    if asked.as_events:
        await response.write(openai.event({"type": "error", **openai.fault(error)[2]}))
        await response.write_eof()
    elif request.transport is not None:
        request.transport.abort()


def _rate_hz(sound: Sound) -> int:
    return round(sound.chunk.sample_count / (sound.chunk.duration.ToNanoseconds() / 1e9))


@web.middleware
async def _faults(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Every fault leaves in OpenAI's shape."""
    try:
        return await handler(request)
    except openai.Refused as refused:
        return web.json_response(refused.body, status=refused.status)
    except MeshError as error:
        status, headers, body = openai.fault(error)
        return web.json_response(body, status=status, headers=headers)
    except web.HTTPException as error:
        if error.status < 400:
            raise
        known = {404: "unknown_url", 405: "method_not_allowed", 413: "too_large"}
        body = openai.error_body(error.reason, "invalid_request_error", None, known.get(error.status))
        return web.json_response(body, status=error.status)
    except ConnectionError:
        raise
    except Exception:
        logger.exception("request failed")
        body = openai.error_body("Internal error; the log of the gateway has more.", "server_error", None, "broken")
        return web.json_response(body, status=500)


def _joined(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
