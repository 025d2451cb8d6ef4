"""The talker's engine as the edge sees it."""

from __future__ import annotations

from services.tts_lm.types import (
    CloneVoice,
    Ended,
    Engine,
    EngineOptions,
    Event,
    FrameBatch,
    ModelInfo,
    ResumePoint,
    SamplingParams,
    Started,
    TextItem,
    Utterance,
    UtteranceRequest,
    VoiceInfo,
)

__all__ = [
    "CloneVoice",
    "Ended",
    "Engine",
    "EngineOptions",
    "Event",
    "FrameBatch",
    "ModelInfo",
    "ResumePoint",
    "SamplingParams",
    "Started",
    "TextItem",
    "Utterance",
    "UtteranceRequest",
    "VoiceInfo",
]
