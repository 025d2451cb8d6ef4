"""The brain's public names: everything the edge needs, importable without any model's library."""

from __future__ import annotations

from dataclasses import replace

from common.errors import InvalidRequest
from common.observer import NOBODY, Observer
from services.brain.admission import BrainEngine
from services.brain.backend import Backend
from services.brain.limits import BrainLimits
from services.brain.options import BackendOptions, LocalOptions, OfflineOptions, OpenAIOptions
from services.brain.types import (
    AudioFormat,
    BrainInfo,
    BrainSampling,
    Ended,
    Engine,
    Event,
    Message,
    Role,
    Started,
    TextPiece,
    Tool,
    ToolCall,
    ToolCallRequest,
    Transcript,
    Turn,
    TurnRequest,
)

__all__ = [
    "AudioFormat",
    "BackendOptions",
    "BrainEngine",
    "BrainInfo",
    "BrainLimits",
    "BrainSampling",
    "Ended",
    "Engine",
    "Event",
    "LocalOptions",
    "Message",
    "OfflineOptions",
    "OpenAIOptions",
    "Role",
    "Started",
    "TextPiece",
    "Tool",
    "ToolCall",
    "ToolCallRequest",
    "Transcript",
    "Turn",
    "TurnRequest",
    "create_backend",
    "create_engine",
]


def create_engine(
    options: BackendOptions, limits: BrainLimits | None = None, instructions: str = "", observer: Observer = NOBODY
) -> BrainEngine:
    """The engine over the chosen backend; call `start` next."""
    return BrainEngine(create_backend(options), limits, instructions, observer)


def create_backend(options: BackendOptions) -> Backend:
    """The chosen backend; its library is imported here and not before. Raises `InvalidRequest` for an unknown name."""
    kind, _, what = options.backend.partition(":")
    if kind == "offline":
        from services.brain.backends.offline import OfflineBackend

        return OfflineBackend(options.offline)
    if kind == "openai":
        from services.brain.backends.openai import OpenAIBackend

        return OpenAIBackend(replace(options.openai, url=what or options.openai.url))
    if kind == "transformers":
        from services.brain.backends.transformers import TransformersBackend

        return TransformersBackend(replace(options.local, model=what or options.local.model))
    if kind == "vllm":
        from services.brain.backends.vllm import VllmBackend

        return VllmBackend(replace(options.local, model=what or options.local.model))
    raise InvalidRequest(f"there is no backend {options.backend!r}: offline, openai:URL, transformers:ID or vllm:ID")
