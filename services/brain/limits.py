"""What one turn and all of them together may ask for, and the check of it. Pure: keeps nothing."""

from __future__ import annotations

from dataclasses import dataclass

from common.errors import InvalidRequest
from services.brain.audio import check_format, duration_s
from services.brain.types import BrainSampling, TurnRequest


@dataclass(frozen=True)
class BrainLimits:
    """Bounds of the engine. `reserve` slots are kept from speculative turns; times are seconds."""

    slot_count: int = 8
    reserve_slots: int = 1
    max_audio_s: float = 120.0
    max_text_characters: int = 32768
    max_history_messages: int = 1024
    max_history_characters: int = 1_000_000
    max_history_audio_s: float = 900.0
    max_tokens: int = 4096
    max_tools: int = 64
    max_tool_rounds: int = 8
    max_calls_per_round: int = 16
    listen_idle_s: float = 60.0
    tool_timeout_s: float = 60.0
    first_delta_timeout_s: float = 60.0
    delta_timeout_s: float = 30.0
    turn_timeout_s: float = 600.0
    transcript_timeout_s: float = 10.0
    unread_events: int = 512
    reader_timeout_s: float = 30.0
    check_interval_s: float = 5.0
    check_timeout_s: float = 10.0


def check_request(request: TurnRequest, limits: BrainLimits) -> None:
    """Raise `InvalidRequest` for what cannot be answered here, whoever asks."""
    check_format(request.audio_format)
    check_sampling(request.sampling)
    text = len(request.instructions) + len(request.partial_answer) + sum(len(m.text) for m in request.history)
    if text > limits.max_history_characters:
        raise _too_large(f"instructions and history hold {text} characters, more than {limits.max_history_characters}")
    if len(request.history) > limits.max_history_messages:
        raise _too_large(f"the history holds {len(request.history)} messages, more than {limits.max_history_messages}")
    heard = duration_s(request.audio_format, sum(len(message.audio) for message in request.history))
    if heard > limits.max_history_audio_s:
        raise _too_large(f"the history holds {heard:.0f} s of audio, more than {limits.max_history_audio_s:.0f} s")
    _check_tools(request, limits)


def _check_tools(request: TurnRequest, limits: BrainLimits) -> None:
    names = [tool.name for tool in request.tools]
    if len(names) > limits.max_tools:
        raise _too_large(f"{len(names)} tools, more than {limits.max_tools}")
    if len(set(names)) < len(names) or not all(names):
        raise InvalidRequest("every tool needs a name of its own")


def check_sampling(sampling: BrainSampling) -> None:
    """Raise `InvalidRequest` for values that mean nothing."""
    if sampling.temperature is not None and not 0 <= sampling.temperature <= 2:
        raise InvalidRequest(f"a temperature of {sampling.temperature} is not in [0, 2]")
    if sampling.top_p is not None and not 0 < sampling.top_p <= 1:
        raise InvalidRequest(f"a top_p of {sampling.top_p} is not in (0, 1]")
    if sampling.max_tokens is not None and sampling.max_tokens < 1:
        raise InvalidRequest(f"max_tokens of {sampling.max_tokens} is less than 1")
    if len(sampling.stop) > 16 or not all(0 < len(stop) <= 128 for stop in sampling.stop):
        raise InvalidRequest("stop takes up to 16 strings of 1 to 128 characters")


def _too_large(sentence: str) -> InvalidRequest:
    return InvalidRequest(sentence, reason="TOO_LARGE")
