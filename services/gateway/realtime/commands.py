"""What a client may say by OpenAI's realtime events, read from hostile JSON. Pure; knows no session and no socket.

Names and meanings are OpenAI's; those that begin with `voice.` are ours. Fields that nobody knows are let pass, as
newer clients send them; what is known and wrong, or known and not offered here, is a `Refusal` that says so.
"""

from __future__ import annotations

import base64
import binascii
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

MAX_MESSAGE_BYTES = 1 << 20  # 16 s of PCM16 at 24 kHz in base64
MAX_DEPTH = 32
MAX_TEXT_CHARACTERS = 32768  # of a turn, of a tool's answer: no brain takes more
MAX_ID_CHARACTERS = 512
MAX_STATS = 32


class Refusal(Exception):
    """A message is refused; the session goes on. `param` names the field, `event_id` is the client's own."""

    def __init__(self, message: str, code: str = "invalid_value", param: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.code = code
        self.param = param
        self.event_id: str | None = None


@dataclass(frozen=True, slots=True)
class Append:
    """Sound from the microphone, PCM16 little endian, 24 kHz, mono."""

    pcm: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Commit:
    """The spoken turn is over."""


@dataclass(frozen=True, slots=True)
class Clear:
    """Forget what was heard of it."""


@dataclass(frozen=True, slots=True)
class CreateItem:
    """A typed message, to be answered by the next `Respond`."""

    text: str
    item_id: str | None


@dataclass(frozen=True, slots=True)
class ToolOutput:
    """What a function answered: an item of type `function_call_output`."""

    call_id: str
    output: str
    item_id: str | None


@dataclass(frozen=True, slots=True)
class Respond:
    """Answer what was typed or committed."""


@dataclass(frozen=True, slots=True)
class Silence:
    """Stop speaking: `response.cancel` and `output_audio_buffer.clear`."""


@dataclass(frozen=True, slots=True)
class Truncate:
    """The client has heard so much of an answer."""

    item_id: str
    heard_s: float


@dataclass(frozen=True, slots=True)
class Update:
    """`session.update`: the session as given, not yet checked against what is offered."""

    session: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Heard:
    """The first audible sample of an answer left the client's loudspeaker, so long ago."""

    epoch: int
    age_s: float


@dataclass(frozen=True, slots=True)
class ClientStats:
    """What the client measures of its own, about once a second. `numbers` are kept as they come."""

    buffer_s: float | None
    numbers: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Say:
    """Speak this text as it is."""

    text: str
    interruptible: bool


@dataclass(frozen=True, slots=True)
class Ping:
    """To be answered at once; `client_ms` comes back."""

    client_ms: float


Command = (
    Append
    | Commit
    | Clear
    | CreateItem
    | ToolOutput
    | Respond
    | Silence
    | Truncate
    | Update
    | Heard
    | ClientStats
    | Say
    | Ping
)


def command_of(message: str | bytes) -> tuple[Command, str | None]:
    """One message of a client, and the `event_id` that the client gave it. Raises `Refusal` for what cannot be done."""
    content = _decoded(message)
    kind, event_id = content.get("type"), content.get("event_id")
    event_id = event_id if isinstance(event_id, str) and len(event_id) <= MAX_ID_CHARACTERS else None
    try:
        if not isinstance(kind, str):
            raise Refusal("An event is a JSON object whose 'type' says what it is.", "missing_type", "type")
        if kind in _ABSENT:
            raise Refusal(f"'{kind}' is not offered here: {_ABSENT[kind]}", "unsupported_event", "type")
        if kind not in _READERS:
            known = ", ".join(_READERS)
            raise Refusal(f"There is no event '{kind[:64]}' here. There are: {known}.", "unknown_event", "type")
        return _READERS[kind](content), event_id
    except Refusal as refusal:
        refusal.event_id = event_id
        raise


def value(
    content: Mapping[str, Any], name: str, kind: type | tuple[type, ...], default: Any = ..., path: str = ""
) -> Any:
    """A field of the right type. Absent and null count as `default`, which makes it optional."""
    found = content.get(name)
    if found is None:
        if default is ...:
            raise Refusal(f"'{path}{name}' is missing.", "missing_required_parameter", f"{path}{name}")
        return default
    if not isinstance(found, kind) or (isinstance(found, bool) and kind is not bool):
        raise Refusal(f"'{path}{name}' is of the wrong type.", "invalid_type", f"{path}{name}")
    if isinstance(found, str):
        _check_text(found, f"{path}{name}")
    return found


def number(
    content: Mapping[str, Any], name: str, low: float, high: float, default: Any = ..., path: str = ""
) -> float | Any:
    """A finite number from `low` to `high`."""
    found = value(content, name, (int, float), default, path)
    if found is default:
        return found
    if not (math.isfinite(found) and low <= found <= high):
        raise Refusal(f"'{path}{name}' is a number from {low:g} to {high:g}.", "invalid_value", f"{path}{name}")
    return float(found)


def _check_text(text: str, param: str) -> None:
    if len(text) > MAX_MESSAGE_BYTES:
        raise Refusal(f"'{param}' is too long.", "string_too_long", param)
    try:
        text.encode()
    except UnicodeEncodeError:
        raise Refusal(f"'{param}' holds half of a surrogate pair, which is no text.", "invalid_value", param) from None


def _decoded(message: str | bytes) -> dict[str, Any]:
    if len(message) > MAX_MESSAGE_BYTES:
        raise Refusal(f"An event holds at most {MAX_MESSAGE_BYTES} bytes.", "too_large")
    try:
        content = json.loads(message)
    except (ValueError, RecursionError):
        raise Refusal("This is not JSON.", "invalid_json") from None
    if not isinstance(content, dict):
        raise Refusal("An event is a JSON object whose 'type' says what it is.", "missing_type", "type")
    _check_depth(content)
    return content


def _check_depth(content: Any) -> None:
    """Nothing below walks deeper than what it knows; this keeps logs and libraries from having to."""
    level: list[Any] = [content]
    for _ in range(MAX_DEPTH):
        level = [
            inner
            for outer in level
            for inner in (outer.values() if isinstance(outer, dict) else outer)
            if isinstance(inner, dict | list)
        ]
        if not level:
            return
    raise Refusal(f"An event is nested at most {MAX_DEPTH} deep.", "too_deep")


def _append(content: Mapping[str, Any]) -> Append:
    try:
        pcm = base64.b64decode(value(content, "audio", str), validate=True)
    except (binascii.Error, ValueError):
        raise Refusal("'audio' is not base64.", "invalid_value", "audio") from None
    if len(pcm) % 2:
        raise Refusal("'audio' holds half a sample: PCM16 has two bytes each.", "invalid_value", "audio")
    return Append(pcm)


def _create_item(content: Mapping[str, Any]) -> CreateItem | ToolOutput:
    item = value(content, "item", dict)
    kind, role = value(item, "type", str, path="item."), item.get("role")
    if kind == "function_call_output":
        return _tool_output(item)
    if kind != "message" or role != "user":
        what = f"an item of type '{kind[:32]}'" if kind != "message" else f"a message of role '{str(role)[:32]}'"
        remedy = "instructions go into session.update" if role == "system" else "only the person's own messages are"
        raise Refusal(f"{what.capitalize()} is not offered here; {remedy}.", "unsupported_item", "item")
    parts = [_text_part(part) for part in value(item, "content", list, path="item.")]
    text = "\n".join(parts).strip()
    if not text:
        raise Refusal("'item.content' holds nothing to answer.", "invalid_value", "item.content")
    if len(text) > MAX_TEXT_CHARACTERS:
        raise Refusal(f"A message holds at most {MAX_TEXT_CHARACTERS} characters.", "string_too_long", "item.content")
    return CreateItem(text, _id(item, "id"))


def _tool_output(item: Mapping[str, Any]) -> ToolOutput:
    call_id = _id(item, "call_id")
    if call_id is None:
        raise Refusal("'item.call_id' is missing.", "missing_required_parameter", "item.call_id")
    output = str(value(item, "output", str, path="item."))
    if len(output) > MAX_TEXT_CHARACTERS:
        raise Refusal(f"An output holds at most {MAX_TEXT_CHARACTERS} characters.", "string_too_long", "item.output")
    return ToolOutput(call_id, output, _id(item, "id"))


def _text_part(part: Any) -> str:
    kind = part.get("type") if isinstance(part, dict) else None
    if kind != "input_text":
        why = "sound goes by input_audio_buffer.append" if kind == "input_audio" else "only input_text is"
        raise Refusal(
            f"Content of type '{str(kind)[:32]}' is not offered here; {why}.", "unsupported_content", "item.content"
        )
    return str(value(part, "text", str, path="item.content."))


def _respond(content: Mapping[str, Any]) -> Respond:
    response = value(content, "response", dict, {})
    for name in ("input", "instructions", "tools", "prompt"):
        if response.get(name):
            raise Refusal(
                f"'response.{name}' is not offered here; session.update holds for all answers.",
                "unsupported_parameter",
                f"response.{name}",
            )
    if response.get("conversation") == "none":
        message = "Answers outside of the conversation are not offered here."
        raise Refusal(message, "unsupported_parameter", "response.conversation")
    if response.get("output_modalities") == ["text"]:
        message = "Answers are spoken here; their text comes along."
        raise Refusal(message, "unsupported_parameter", "response.output_modalities")
    return Respond()


def _truncate(content: Mapping[str, Any]) -> Truncate:
    item_id = _id(content, "item_id")
    if item_id is None:
        raise Refusal("'item_id' is missing.", "missing_required_parameter", "item_id")
    return Truncate(item_id, number(content, "audio_end_ms", 0, 86_400_000) / 1000)


def _heard(content: Mapping[str, Any]) -> Heard:
    epoch = number(content, "generation_id", 0, 2**53)
    return Heard(int(epoch), number(content, "age_ms", 0, 60_000, 0.0) / 1000)


def _stats(content: Mapping[str, Any]) -> ClientStats:
    delays = [number(content, name, 0, 60_000, None) for name in ("jb_ms", "playout_ms")]
    known = [delay for delay in delays if delay is not None]
    numbers = {
        name[:64]: float(given)
        for name, given in content.items()
        if isinstance(given, int | float) and not isinstance(given, bool) and abs(given) < 1e15
    }
    kept = dict(list(numbers.items())[:MAX_STATS])
    return ClientStats(min(2.0, sum(known) / 1000) if known else None, kept)


def _say(content: Mapping[str, Any]) -> Say:
    text = value(content, "text", str).strip()
    if not text or len(text) > MAX_TEXT_CHARACTERS:
        message = f"'text' holds 1 to {MAX_TEXT_CHARACTERS} characters."
        raise Refusal(message, "invalid_value", "text")
    return Say(text, value(content, "interruptible", bool, True))


def _id(content: Mapping[str, Any], name: str) -> str | None:
    found: str | None = value(content, name, str, None)
    if found is not None and not 0 < len(found) <= MAX_ID_CHARACTERS:
        raise Refusal(f"'{name}' holds 1 to {MAX_ID_CHARACTERS} characters.", "invalid_value", name)
    return found


_READERS: dict[str, Callable[[Mapping[str, Any]], Command]] = {
    "session.update": lambda content: Update(value(content, "session", dict)),
    "input_audio_buffer.append": _append,
    "input_audio_buffer.commit": lambda content: Commit(),
    "input_audio_buffer.clear": lambda content: Clear(),
    "conversation.item.create": _create_item,
    "conversation.item.truncate": _truncate,
    "response.create": _respond,
    "response.cancel": lambda content: Silence(),
    "output_audio_buffer.clear": lambda content: Silence(),
    "voice.heard": _heard,
    "voice.client_stats": _stats,
    "voice.say": _say,
    "voice.ping": lambda content: Ping(number(content, "client_ms", 0, 2**53)),
}
_ABSENT = {
    "conversation.item.delete": "the history is what was said and heard.",
    "conversation.item.retrieve": "sound is not kept.",
    "transcription_session.update": "sessions converse, they do not only transcribe.",
}
