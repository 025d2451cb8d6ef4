"""A turn's milestones as the stages between them, which add up to the whole. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from common.telemetry import Milestone

STAGES: dict[Milestone, str] = {
    Milestone.ENDPOINT: "endpoint",
    Milestone.BRAIN_FIRST_TOKEN: "brain",
    Milestone.TTS_TEXT_FIRST: "gate",
    Milestone.TTS_FIRST_FRAME: "tts_lm",
    Milestone.CODEC_FIRST_PCM: "codec",
    Milestone.FIRST_OPUS: "encode",
    Milestone.PLAYOUT_FIRST: "playout",
    Milestone.CLIENT_FIRST_AUDIBLE: "client",
}
"""Each stage by the milestone that ends it, in the order of a turn."""


def stages_s(milestones: Mapping[Milestone, float]) -> dict[str, float]:
    """Seconds of each stage whose end is known. One that came before its predecessor (work done ahead of time) took
    none of the person's time; so they add up to the latest milestone."""
    reached, found = 0.0, {}
    for milestone, stage in STAGES.items():
        if milestone in milestones:
            found[stage] = max(0.0, milestones[milestone] - reached)
            reached = max(reached, milestones[milestone])
    return found


def milliseconds(seconds: Mapping[str, float]) -> dict[str, float]:
    """The same, for people: ms with one digit behind the point."""
    return {name: round(value * 1000, 1) for name, value in seconds.items()}
