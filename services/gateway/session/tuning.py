"""What a session asked for, in the turn machine's numbers. Pure."""

from __future__ import annotations

from dataclasses import replace

from common.errors import InvalidRequest
from services.gateway.session.ports import TurnDetection
from services.gateway.turns.settings import TurnSettings
from services.gateway.turns.states import Policy

_EAGERNESS = {"low": 1.6, "auto": 1.0, "medium": 1.0, "high": 0.6}
_SHORTEST_S, _LONGEST_S = 0.1, 10.0


def tuned(settings: TurnSettings, wanted: TurnDetection, *, hears: bool = False) -> TurnSettings:
    """`settings` as a session wants them; `hears`: somebody can say what is said over answers. `InvalidRequest` for
    numbers that cannot work."""
    changes: dict[str, object] = {
        "await_overlap_verdict": settings.await_overlap_verdict or hears,
        "policy": Policy.MANUAL if wanted.mode == "none" else settings.policy,
        "create_response": settings.create_response and wanted.create_response,
        "interrupt_response": settings.interrupt_response and wanted.interrupt_response,
    }
    if wanted.prefix_padding_s is not None:
        changes["preroll_s"] = min(max(0.0, wanted.prefix_padding_s), _LONGEST_S)
    if wanted.idle_timeout_s is not None:
        changes["user_away_s"] = wanted.idle_timeout_s
    if wanted.mode == "server_vad" and wanted.silence_s is not None:
        changes |= _silence(settings, wanted.silence_s)
    elif wanted.mode == "semantic_vad":
        changes |= _eager(settings, _EAGERNESS[wanted.eagerness])
    try:
        return replace(settings, **changes)  # type: ignore[arg-type]
    except ValueError as wrong:
        raise InvalidRequest(f"Turn detection cannot work so: {wrong}.", field="turn_detection") from None


def _silence(settings: TurnSettings, silence_s: float) -> dict[str, object]:
    """So much silence ends a turn, however complete it sounds."""
    silence_s = min(max(_SHORTEST_S, silence_s), _LONGEST_S)
    names = ("complete_delay_s", "unsure_delay_s", "incomplete_delay_s")
    return {
        **dict.fromkeys(names, silence_s),
        "max_delay_s": max(settings.max_delay_s, silence_s),
        "soft_end_s": min(settings.soft_end_s, silence_s),
        "learn_pauses": False,
    }


def _eager(settings: TurnSettings, factor: float) -> dict[str, object]:
    names = ("unsure_delay_s", "incomplete_delay_s", "max_delay_s")
    changes: dict[str, object] = {name: getattr(settings, name) * factor for name in names}
    changes["complete_delay_s"] = min(settings.complete_delay_s, settings.unsure_delay_s * factor)
    changes["soft_end_s"] = min(settings.soft_end_s, settings.max_delay_s * factor)
    return changes
