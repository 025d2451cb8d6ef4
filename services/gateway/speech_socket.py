"""`/v1/audio/speech/stream`: the messages of `Synthesize` as JSON over a WebSocket, sound as binary frames.

Only a translation: what may follow what, epochs and ends are the same edge's that serves gRPC.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from typing import Any

from aiohttp import WSMsgType, web
from google.protobuf.duration_pb2 import Duration
from voicemesh.gateway.v1 import gateway_pb2
from voicemesh.stream.v1 import stream_pb2
from voicemesh.tts_lm.v1 import tts_lm_pb2

from common.duplex import Edge
from common.errors import Broken, InvalidRequest, MeshError
from common.stage import Stage
from common.status import cause_of, error_of
from common.stream import FinishReason
from services.gateway.openai_speech import House, Refused, voice_of

MAX_MESSAGE_BYTES = 1 << 20
_ENCODINGS = {
    "pcm": stream_pb2.AUDIO_ENCODING_PCM_S16LE,
    "pcm_f32": stream_pb2.AUDIO_ENCODING_PCM_F32LE,
    "mulaw": stream_pb2.AUDIO_ENCODING_MULAW,
    "opus": stream_pb2.AUDIO_ENCODING_OPUS,
}
_NAMES = {value: name for name, value in _ENCODINGS.items()}
_START = {
    "voice": str,
    "language": str,
    "instructions": str,
    "format": str,
    "sample_rate": int,
    "seed": int,
    "max_frames": int,
    "max_lead_frames": int,
    "text_timeout_s": (int, float),
    "paced": bool,
    "speakable_filter": bool,
}
_CLOSE_POLICY, _CLOSE_INTERNAL = 1008, 1011


async def serve_socket(
    request: web.Request, edge: Edge, stage: Stage[Any, Any, Any], house: Callable[[], House]
) -> web.WebSocketResponse:
    """One caller, until it leaves or breaks the protocol; then an `error` message says how, and the socket closes."""
    socket = web.WebSocketResponse(max_msg_size=MAX_MESSAGE_BYTES, heartbeat=30.0, protocols=("realtime",))
    await socket.prepare(request)
    try:
        await edge.serve(stage, _requests(socket, house), _Writer(socket))
    except BaseExceptionGroup as group:
        error = cause_of(group)
        if isinstance(error, ConnectionError):
            return socket
        if not isinstance(error, MeshError):
            raise
        await _say_why(socket, error)
    except MeshError as error:
        await _say_why(socket, error)
    else:
        await socket.close()
    return socket


async def _say_why(socket: web.WebSocketResponse, error: MeshError) -> None:
    if not socket.closed:
        await socket.send_json({"type": "error", "error": error_facts(error)})
        code = _CLOSE_INTERNAL if isinstance(error, Broken) else _CLOSE_POLICY
        await socket.close(code=code, message=error.reason.encode())


def error_facts(error: MeshError) -> dict[str, str]:
    """A fault as JSON."""
    return {"message": error.message, "reason": error.reason, "status": error.status}


async def _requests(
    socket: web.WebSocketResponse, house: Callable[[], House]
) -> AsyncIterator[gateway_pb2.SynthesizeRequest]:
    async for message in socket:
        if message.type is not WSMsgType.TEXT:
            raise InvalidRequest("Messages to this socket are JSON texts; sound only comes from it.")
        yield request_of(message.data, house())


def request_of(text: str, house: House) -> gateway_pb2.SynthesizeRequest:
    """One message of a caller. `InvalidRequest` for what is none."""
    try:
        message = json.loads(text)
    except (ValueError, RecursionError):
        raise InvalidRequest("This message is not JSON.", reason="UNDECODABLE") from None
    if not isinstance(message, dict):
        raise InvalidRequest("A message is a JSON object with a `type`.")
    kind, marks = message.pop("type", None), {name: message.pop(name, None) for name in ("epoch", "seq")}
    if any(mark is not None and (type(mark) is not int or not 0 <= mark < 1 << 63) for mark in marks.values()):
        raise InvalidRequest("`epoch` and `seq` are whole numbers that count from 0.")
    request = gateway_pb2.SynthesizeRequest(**marks)
    match kind:
        case "start":
            request.start.CopyFrom(_start(message, house))
            return request
        case "text":
            try:
                request.text = _value(message, "text", str, "")
            except UnicodeEncodeError:
                raise InvalidRequest("`text` holds half of a surrogate pair, which is no text.") from None
        case "credit":
            frames = _value(message, "frames", int, 0)
            if not 1 <= frames < 1 << 31:
                raise InvalidRequest("`frames` is how many more, at least 1.")
            request.credit.frames = frames
        case "flush":
            request.flush.SetInParent()
        case "boundary":
            request.boundary.SetInParent()
        case "stop":
            request.stop.SetInParent()
        case "reset":
            request.reset.SetInParent()
        case _:
            raise InvalidRequest("`type` is start, text, boundary, flush, stop, reset or credit.")
    _refuse_rest(message, {"text": ("text",), "credit": ("frames",)}.get(str(kind), ()))
    return request


def _start(message: dict[str, Any], house: House) -> gateway_pb2.SynthesizeStart:
    _refuse_rest(message, tuple(_START))
    given = {name: _value(message, name, kind, None) for name, kind in _START.items() if message.get(name) is not None}
    start = gateway_pb2.SynthesizeStart()
    try:
        voice = voice_of(given["voice"], house) if "voice" in given else None
        start.speech.CopyFrom(
            tts_lm_pb2.GenerateStart(
                voice=voice,
                language=given.get("language", ""),
                instruct=given.get("instructions", ""),
                max_frames=given.get("max_frames", 0),
                max_lead_frames=given.get("max_lead_frames", 0),
            )
        )
        if "seed" in given:
            start.speech.sampling.seed = given["seed"]
        if "text_timeout_s" in given:
            start.speech.text_timeout.CopyFrom(Duration(nanos=0))
            start.speech.text_timeout.FromNanoseconds(round(given["text_timeout_s"] * 1e9))
        form = stream_pb2.AudioFormat(sample_rate_hz=given.get("sample_rate", 0), channel_count=1)
    except Refused as refused:
        raise InvalidRequest(str(refused), reason="UNKNOWN_NAME") from None
    except (ValueError, OverflowError):
        raise InvalidRequest("A number of this `start` is out of range, or a text is none.") from None
    if given.get("format", "pcm") not in _ENCODINGS:
        raise InvalidRequest(f"`format` is one of {', '.join(_ENCODINGS)}.")
    form.encoding = _ENCODINGS[given.get("format", "pcm")]
    start.format.CopyFrom(form)
    start.paced = given.get("paced", False)
    start.speakable_filter = given.get("speakable_filter", False)
    return start


def _value(message: dict[str, Any], name: str, kind: Any, default: Any) -> Any:
    value = message.get(name, default)
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise InvalidRequest(f"`{name}` is of the wrong type.", field=name)
    return value


def _refuse_rest(message: dict[str, Any], known: tuple[str, ...]) -> None:
    for name in message:
        if name not in known:
            raise InvalidRequest(f"`{name}` means nothing here; known are {', '.join(known) or 'no more fields'}.")


class _Writer:
    """Responses as JSON; `audio` is followed by its samples as a binary frame."""

    def __init__(self, socket: web.WebSocketResponse) -> None:
        self._socket = socket

    async def send_initial_metadata(self, metadata: Any, /) -> None:
        """A WebSocket said what it had to when it opened."""

    async def write(self, message: gateway_pb2.SynthesizeResponse, /) -> None:
        await self._socket.send_json(_response(message))
        if message.WhichOneof("payload") == "audio":
            await self._socket.send_bytes(message.audio.payload)


def _response(message: gateway_pb2.SynthesizeResponse) -> dict[str, Any]:
    kind = message.WhichOneof("payload")
    facts: dict[str, Any] = {"type": kind, "epoch": message.epoch, "seq": message.seq}
    if kind == "started":
        form = message.started.format
        facts |= {"session_id": message.session_id, "seed": str(message.started.seed)}
        facts |= {"format": _NAMES.get(form.encoding, "pcm"), "sample_rate": form.sample_rate_hz}
    elif kind == "audio":
        audio = message.audio
        facts |= {"first_sample_offset": audio.first_sample_offset, "sample_count": audio.sample_count}
        facts |= {"text_offset": audio.text_offset}
    elif kind == "ended":
        ended = message.ended
        facts |= {"reason": FinishReason(ended.reason).name, "text_tokens": ended.text_token_count}
        facts |= {"frames": ended.frame_count, "samples": ended.sample_count}
        if ended.HasField("error"):
            facts["error"] = error_facts(error_of(ended.error))
    return facts
