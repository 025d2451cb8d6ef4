"""What a `ConverseStart` asks for, checked, in the conversation's words. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from voicemesh.brain.v1 import brain_pb2
from voicemesh.gateway.v1 import gateway_pb2
from voicemesh.stream.v1 import stream_pb2

from common.errors import InvalidRequest
from services.gateway.session.formats import checked
from services.gateway.session.ports import HEARD_RATE_HZ, PLAYED_RATE_HZ, SessionSettings, TurnDetection

MAX_INSTRUCTIONS_CHARACTERS = 65536
MAX_TOOLS, MAX_TOOLS_BYTES = 64, 1 << 18
Mode = Literal["server_vad", "semantic_vad", "none"]
_MODES: dict[int, Mode] = {
    gateway_pb2.TURN_DETECTION_MODE_UNSPECIFIED: "semantic_vad",
    gateway_pb2.TURN_DETECTION_MODE_SERVER_VAD: "server_vad",
    gateway_pb2.TURN_DETECTION_MODE_SEMANTIC_VAD: "semantic_vad",
    gateway_pb2.TURN_DETECTION_MODE_NONE: "none",
}


@dataclass(frozen=True)
class Asked:
    """Formats with their defaults written out."""

    settings: SessionSettings
    input_format: stream_pb2.AudioFormat
    output_format: stream_pb2.AudioFormat
    is_resumption: bool


def asked_of(start: gateway_pb2.ConverseStart) -> Asked:
    """`InvalidRequest` for what cannot be."""
    if len(start.instructions) > MAX_INSTRUCTIONS_CHARACTERS:
        sentence = f"Instructions hold at most {MAX_INSTRUCTIONS_CHARACTERS} characters."
        raise InvalidRequest(sentence, reason="TOO_LARGE", field="instructions")
    if start.speech.max_frames < 0:
        raise InvalidRequest("max_frames counts frames and cannot be negative.", field="speech.max_frames")
    sampling = start.sampling
    settings = SessionSettings(
        instructions=start.instructions,
        turn_detection=_detection(start.turn_detection),
        speakable_filter=start.speakable_filter if start.HasField("speakable_filter") else True,
        want_transcript=start.want_transcript if start.HasField("want_transcript") else True,
        temperature=sampling.temperature if sampling.HasField("temperature") else None,
        max_tokens=sampling.max_tokens if sampling.HasField("max_tokens") else None,
        echo_cancellation=start.echo_cancellation,
        tools=_tools(start.tools),
        speech=start.speech,
    )
    return Asked(
        settings,
        checked(start.input_format, HEARD_RATE_HZ, "input_format", 2),
        checked(start.output_format, PLAYED_RATE_HZ, "output_format", 1),
        bool(start.resume_token),
    )


def _tools(wanted: Sequence[brain_pb2.Tool]) -> tuple[brain_pb2.Tool, ...]:
    if len(wanted) > MAX_TOOLS or sum(tool.ByteSize() for tool in wanted) > MAX_TOOLS_BYTES:
        sentence = f"At most {MAX_TOOLS} tools and {MAX_TOOLS_BYTES} bytes of them are taken."
        raise InvalidRequest(sentence, reason="TOO_LARGE", field="tools")
    names = [tool.name for tool in wanted]
    if not all(names) or len(set(names)) < len(names):
        raise InvalidRequest("Every tool has a name of its own.", field="tools")
    return tuple(wanted)


def _detection(wanted: gateway_pb2.TurnDetection) -> TurnDetection:
    if wanted.mode not in _MODES:
        raise InvalidRequest("That mode of turn detection is not known.", field="turn_detection.mode")
    mode = _MODES[wanted.mode]
    silence_s = wanted.silence.ToNanoseconds() / 1e9 if wanted.HasField("silence") else None
    padding_s = wanted.prefix_padding.ToNanoseconds() / 1e9 if wanted.HasField("prefix_padding") else None
    if (silence_s is not None and silence_s <= 0) or (padding_s is not None and padding_s < 0):
        raise InvalidRequest("Times of turn detection are not negative.", field="turn_detection")
    return TurnDetection(
        mode="server_vad" if silence_s is not None and mode != "none" else mode,
        silence_s=silence_s,
        prefix_padding_s=padding_s,
        create_response=not wanted.no_answer,
        interrupt_response=not wanted.no_interruption,
    )
