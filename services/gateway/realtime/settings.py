"""`session.update` → `SessionSettings`, and a session as its clients see it. Pure.

An update is taken whole or not at all. What is left out stays as it was; `turn_detection: null` switches detection off.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, cast

from services.gateway.realtime.commands import MAX_TEXT_CHARACTERS, Refusal, number, value
from services.gateway.realtime.tools import tools_object, tools_of
from services.gateway.session.ports import SessionSettings, TurnDetection

MAX_ANSWER_TOKENS = 1 << 20
Eagerness = Literal["low", "medium", "high", "auto"]


@dataclass(frozen=True)
class Offer:
    """What can be asked for here: voices by their own spelling (none: not known yet, any is let through), stock names
    that mean one of them, and languages."""

    model_id: str = "voicemesh"
    voices: tuple[str, ...] = ()
    aliases: Mapping[str, str] = field(default_factory=dict)
    languages: tuple[str, ...] = ()


def updated(settings: SessionSettings, session: Mapping[str, Any], offer: Offer) -> SessionSettings:
    """`settings` as `session` changes them. Raises `Refusal`; nothing has changed then."""
    _refuse_absent(session)
    audio = value(session, "audio", dict, {}, "session.")
    heard = value(audio, "input", dict, {}, "session.audio.")
    spoken = value(audio, "output", dict, {}, "session.audio.")
    ours = value(session, "voicemesh", dict, {}, "session.")
    for side, path in ((heard, "session.audio.input."), (spoken, "session.audio.output.")):
        _check_format(value(side, "format", dict, {}, path), f"{path}format")
    if number(spoken, "speed", 0, 10, 1.0, "session.audio.output.") != 1.0:
        raise Refusal("'speed' can only be 1 here.", "unsupported_parameter", "session.audio.output.speed")
    changes: dict[str, Any] = {}
    if session.get("instructions") is not None:
        changes["instructions"] = _text(session, "instructions", "session.")
    for name in ("language", "instruct"):
        if ours.get(name) is not None:
            changes[name] = _text(ours, name, "session.voicemesh.")
    if changes.get("language"):
        changes["language"] = _known(changes["language"], offer.languages, "language", "session.voicemesh.language")
    voice = spoken.get("voice", session.get("voice"))
    if voice is not None:
        changes["voice"] = _voice(voice, offer)
    if "max_output_tokens" in session:
        changes["max_tokens"] = _most(session["max_output_tokens"])
    if "transcription" in heard:
        changes["want_transcript"] = heard["transcription"] is not None
    if "tools" in session or "tool_choice" in session:
        changes["tools"] = tools_of(session, settings.tools)
    for side in (session, heard):  # older clients have it at the top
        if "turn_detection" in side:
            changes["turn_detection"] = _detection(side["turn_detection"], settings.turn_detection)
    return replace(settings, **changes)


def session_object(settings: SessionSettings, session_id: str, resume_token: str, offer: Offer) -> dict[str, Any]:
    """The session as `session.created` and `session.updated` show it; what OpenAI has no word for is in `voicemesh`."""
    pcm = {"type": "audio/pcm", "rate": 24000}
    return {
        "type": "realtime",
        "object": "realtime.session",
        "id": session_id,
        "model": offer.model_id,
        "output_modalities": ["audio"],
        "instructions": settings.instructions,
        "max_output_tokens": settings.max_tokens or "inf",
        "tools": tools_object(settings.tools),
        "tool_choice": "auto" if settings.tools else "none",
        "audio": {
            "input": {
                "format": pcm,
                "transcription": {"model": offer.model_id} if settings.want_transcript else None,
                "turn_detection": _detection_object(settings.turn_detection),
            },
            "output": {"format": pcm, "voice": settings.voice or "default", "speed": 1.0},
        },
        "voicemesh": {
            "resume_token": resume_token,
            "language": settings.language,
            "instruct": settings.instruct,
            "voices": list(offer.voices),
            "languages": list(offer.languages),
        },
    }


def _refuse_absent(session: Mapping[str, Any]) -> None:
    kind = session.get("type", "realtime")
    if kind != "realtime":
        raise Refusal(
            f"Sessions of type '{str(kind)[:32]}' are not offered here.", "unsupported_parameter", "session.type"
        )
    if session.get("prompt"):
        raise Refusal("Stored prompts are not offered here.", "unsupported_parameter", "session.prompt")
    modalities = session.get("output_modalities", session.get("modalities"))
    if modalities is not None and (not isinstance(modalities, list) or "audio" not in modalities):
        message = "Answers are spoken here; their text comes along. 'output_modalities' is [\"audio\"]."
        raise Refusal(message, "unsupported_parameter", "session.output_modalities")


def _check_format(form: Mapping[str, Any], path: str) -> None:
    kind, rate = form.get("type", "audio/pcm"), form.get("rate", 24000)
    if kind != "audio/pcm" or rate != 24000:
        raise Refusal("Sound here is audio/pcm at 24000 Hz.", "unsupported_parameter", path)


def _text(content: Mapping[str, Any], name: str, path: str) -> str:
    text = str(value(content, name, str, path=path))
    if len(text) > MAX_TEXT_CHARACTERS:
        raise Refusal(f"'{path}{name}' is too long.", "string_too_long", f"{path}{name}")
    return text


def _known(name: str, known: tuple[str, ...], what: str, param: str) -> str:
    """A name by its own spelling; "auto" and "default" mean the service's own choice."""
    if name.lower() in ("auto", "default"):
        return ""
    by_name = {other.lower(): other for other in known}
    if known and name.lower() not in by_name:
        listed = ", ".join(known)
        raise Refusal(f"There is no {what} '{name[:64]}' here. There are: {listed}.", f"{what}_not_found", param)
    return by_name.get(name.lower(), name)


def _voice(voice: Any, offer: Offer) -> str:
    param = "session.audio.output.voice"
    name = voice.get("id") if isinstance(voice, dict) else voice
    if not isinstance(name, str) or not 0 < len(name) <= 256:
        raise Refusal("A voice is a name.", "invalid_type", param)
    aliases = {alias.lower(): meant for alias, meant in offer.aliases.items()}
    return _known(aliases.get(name.lower(), name), offer.voices, "voice", param)


def _most(given: Any) -> int | None:
    if given is None or given == "inf":
        return None
    whole = isinstance(given, int) and not isinstance(given, bool)
    if not whole or not 1 <= given <= MAX_ANSWER_TOKENS:
        message = "'max_output_tokens' is a whole number from 1, or 'inf'."
        raise Refusal(message, "invalid_value", "session.max_output_tokens")
    return int(given)


def _detection(given: Any, before: TurnDetection) -> TurnDetection:
    path = "session.audio.input.turn_detection."
    if given is None:
        return replace(before, mode="none")
    if not isinstance(given, dict):
        raise Refusal("'turn_detection' is an object or null.", "invalid_type", path[:-1])
    mode = value(given, "type", str, "server_vad", path)
    if mode not in ("server_vad", "semantic_vad", "none"):
        raise Refusal("'type' is server_vad, semantic_vad or none.", "invalid_value", f"{path}type")
    eagerness = value(given, "eagerness", str, "auto", path)
    if eagerness not in ("low", "medium", "high", "auto"):
        raise Refusal("'eagerness' is low, medium, high or auto.", "invalid_value", f"{path}eagerness")
    return TurnDetection(
        mode=cast(Literal["server_vad", "semantic_vad", "none"], mode),
        threshold=number(given, "threshold", 0, 1, None, path),
        prefix_padding_s=_seconds(given, "prefix_padding_ms", 0, 5_000, path),
        silence_s=_seconds(given, "silence_duration_ms", 0, 10_000, path),
        idle_timeout_s=_seconds(given, "idle_timeout_ms", 1_000, 600_000, path),
        create_response=value(given, "create_response", bool, True, path),
        interrupt_response=value(given, "interrupt_response", bool, True, path),
        eagerness=cast(Eagerness, eagerness),
    )


def _seconds(given: Mapping[str, Any], name: str, low: float, high: float, path: str) -> float | None:
    found = number(given, name, low, high, None, path)
    return None if found is None else found / 1000


def _detection_object(detection: TurnDetection) -> dict[str, Any] | None:
    if detection.mode == "none":
        return None
    shared: dict[str, Any] = {
        "type": detection.mode,
        "create_response": detection.create_response,
        "interrupt_response": detection.interrupt_response,
    }
    if detection.mode == "semantic_vad":
        return shared | {"eagerness": detection.eagerness}
    given = {
        "prefix_padding_ms": detection.prefix_padding_s,
        "silence_duration_ms": detection.silence_s,
        "idle_timeout_ms": detection.idle_timeout_s,
    }
    shared |= {name: round(seconds * 1000) for name, seconds in given.items() if seconds is not None}
    return shared if detection.threshold is None else shared | {"threshold": detection.threshold}
