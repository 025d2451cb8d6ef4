"""The words of OpenAI's speech endpoint: its request → ours, our faults → its errors. Pure; knows no HTTP library."""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from voicemesh.gateway.v1 import gateway_pb2
from voicemesh.stream.v1 import stream_pb2
from voicemesh.tts_lm.v1 import tts_lm_pb2

from common.errors import MeshError, Overloaded
from services.gateway.audio_files import FORMATS

STOCK_MODELS = ("tts-1", "tts-1-hd", "gpt-4o-mini-tts")
"""What its clients ask for when nobody told them better; answered by the model that is here."""
DEFAULT_VOICE = "default"
_FIELDS = (
    *("model", "input", "voice", "instructions", "response_format", "speed", "stream_format"),
    *("seed", "language", "speakable_filter"),
)
_STATUS = {
    "INVALID_ARGUMENT": 400,
    "FAILED_PRECONDITION": 400,
    "UNAUTHENTICATED": 401,
    "PERMISSION_DENIED": 403,
    "NOT_FOUND": 404,
    "RESOURCE_EXHAUSTED": 429,
    "UNAVAILABLE": 503,
    "DEADLINE_EXCEEDED": 504,
}
_TYPES = {401: "authentication_error", 429: "rate_limit_error"}


class Refused(Exception):
    """The request is refused; `param` names the field."""

    def __init__(self, message: str, param: str | None = None, code: str = "invalid_value", status: int = 400) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.body = error_body(message, _type_of(status), param, code)


@dataclass(frozen=True)
class SpeechRequest:
    """What was asked for, checked."""

    text: str
    form: str
    as_events: bool
    start: gateway_pb2.SynthesizeStart


@dataclass(frozen=True)
class House:
    """What is spoken here: `voices` by their own spelling, `aliases` from stock names to them."""

    model_id: str
    voices: tuple[str, ...]
    aliases: Mapping[str, str]
    max_characters: int


def speech_request(body: Any, house: House) -> SpeechRequest:
    """Check a decoded JSON body; raises `Refused` with a sentence that says what would be accepted."""
    if not isinstance(body, dict):
        raise Refused("The body must be a JSON object.")
    for name in body:
        if name not in _FIELDS:
            raise Refused(f"Unknown parameter: '{name}'. Known are {', '.join(_FIELDS)}.", name, "unknown_parameter")
    given = {name: value for name, value in body.items() if value is not None}
    text = _text(given, "input", house.max_characters, required=True)
    if not text.strip():
        raise Refused("'input' holds nothing to say.", "input")
    _check_model(_text(given, "model", 256, required=True), house)
    _check_speed(given.get("speed", 1.0))
    form = _one_of(given, "response_format", FORMATS, "mp3")
    stream_format = _one_of(given, "stream_format", ("audio", "sse"), "audio")
    start = gateway_pb2.SynthesizeStart(
        speech=tts_lm_pb2.GenerateStart(
            voice=_voice(given.get("voice"), house),
            language=_text(given, "language", 64),
            instruct=_text(given, "instructions", house.max_characters),
        ),
        format=stream_pb2.AudioFormat(encoding=stream_pb2.AUDIO_ENCODING_PCM_S16LE, channel_count=1),
    )
    if "seed" in given:
        start.speech.sampling.seed = _seed(given["seed"])
    start.speakable_filter = _switch(given, "speakable_filter")
    return SpeechRequest(text, form, stream_format == "sse", start)


def voice_of(name: str, house: House) -> tts_lm_pb2.Voice | None:
    """A voice by its name here or by a stock name that is mapped to one; None for the default. Raises `Refused`."""
    by_name = {voice.lower(): voice for voice in house.voices}
    aliases = {alias.lower(): voice for alias, voice in house.aliases.items()}
    wanted = name.lower()
    wanted = aliases.get(wanted, wanted).lower()
    if wanted == DEFAULT_VOICE:
        return None
    if wanted in by_name:
        return tts_lm_pb2.Voice(name=by_name[wanted])
    known = ", ".join([DEFAULT_VOICE, *house.voices])
    raise Refused(f"There is no voice '{name}' here. There are: {known}.", "voice", "voice_not_found")


def error_body(message: str, kind: str, param: str | None, code: str | None) -> dict[str, Any]:
    """An error as its clients read it."""
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def fault(error: MeshError) -> tuple[int, dict[str, str], dict[str, Any]]:
    """Status, headers and body for a fault of ours."""
    status = _STATUS.get(error.status, 500)
    headers = {"Retry-After": str(max(1, math.ceil(error.retry_after_s)))} if isinstance(error, Overloaded) else {}
    if status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    return status, headers, error_body(error.message, _type_of(status), None, error.reason.lower())


def delta_event(piece: bytes) -> bytes:
    """A piece of the file as a server-sent event."""
    return event({"type": "speech.audio.delta", "audio": base64.b64encode(piece).decode()})


def done_event(input_tokens: int, output_tokens: int, finish_reason: str) -> bytes:
    """The last event. Tokens are text tokens read and frames made; `finish_reason` is ours."""
    usage = {
        "input_tokens": input_tokens,
        "output_tokens": output_tokens,
        "total_tokens": input_tokens + output_tokens,
    }
    return event({"type": "speech.audio.done", "usage": usage, "finish_reason": finish_reason})


def event(message: dict[str, Any]) -> bytes:
    """One server-sent event."""
    return b"data: " + json.dumps(message, ensure_ascii=False).encode() + b"\n\n"


def model_card(model_id: str) -> dict[str, Any]:
    """A model as `/v1/models` lists it."""
    return {"id": model_id, "object": "model", "created": 0, "owned_by": "voicemesh"}


def voice_cards(voices: Iterable[tts_lm_pb2.VoiceInfo]) -> list[dict[str, str]]:
    """Voices as `/v1/audio/voices` lists them."""
    names = ("name", "language", "dialect", "description")
    return [{name: getattr(voice, name) for name in names} for voice in voices]


def _type_of(status: int) -> str:
    return _TYPES.get(status, "invalid_request_error" if status < 500 else "server_error")


def _text(given: dict[str, Any], name: str, longest: int, required: bool = False) -> str:
    value = given.get(name)
    if value is None and not required:
        return ""
    if not isinstance(value, str):
        missing = f"Missing required parameter: '{name}'." if value is None else f"'{name}' must be a string."
        raise Refused(missing, name, "missing_required_parameter" if value is None else "invalid_type")
    if len(value) > longest:
        raise Refused(f"'{name}' has {len(value)} characters; at most {longest} are taken.", name, "string_too_long")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise Refused(f"'{name}' holds half of a surrogate pair, which is no text.", name) from None
    return value


def _switch(given: dict[str, Any], name: str) -> bool:
    value = given.get(name, False)
    if not isinstance(value, bool):
        raise Refused(f"'{name}' must be true or false.", name, "invalid_type")
    return value


def _one_of(given: dict[str, Any], name: str, known: tuple[str, ...], default: str) -> str:
    value = given.get(name, default)
    if value not in known:
        raise Refused(f"'{name}' must be one of {', '.join(known)}.", name)
    return str(value)


def _check_model(name: str, house: House) -> None:
    is_stock = any(name == stock or name.startswith(f"{stock}-") for stock in STOCK_MODELS)
    if not is_stock and name != house.model_id:
        known = ", ".join([house.model_id, *STOCK_MODELS])
        raise Refused(f"There is no model '{name}' here. There are: {known}.", "model", "model_not_found", 404)


def _check_speed(speed: Any) -> None:
    if isinstance(speed, bool) or not isinstance(speed, int | float) or speed != 1:
        raise Refused("'speed' can only be 1 here; say how to speak in 'instructions'.", "speed", "unsupported_value")


def _voice(voice: Any, house: House) -> tts_lm_pb2.Voice | None:
    if isinstance(voice, dict) and isinstance(voice.get("id"), str):
        return tts_lm_pb2.Voice(clone=tts_lm_pb2.Clone(voice_id=voice["id"]))
    if voice is None or not isinstance(voice, str):
        missing = "Missing required parameter: 'voice'." if voice is None else "'voice' must be a name or {'id': …}."
        raise Refused(missing, "voice", "missing_required_parameter" if voice is None else "invalid_type")
    return voice_of(voice, house)


def _seed(seed: Any) -> int:
    if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 1 << 64:
        raise Refused("'seed' must be a whole number from 0 to 2^64 - 1.", "seed")
    return seed
