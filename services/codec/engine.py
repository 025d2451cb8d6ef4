"""The codec engine's public names: everything the edge needs, importable without torch."""

from services.codec.types import (
    AudioBatch,
    CodecInfo,
    Codes,
    DecodeSpec,
    EncodedVoice,
    EncodeSpec,
    Encoding,
    Ended,
    Engine,
    EngineSettings,
    Event,
    Started,
    Utterance,
)

__all__ = [
    "AudioBatch",
    "CodecInfo",
    "Codes",
    "DecodeSpec",
    "EncodeSpec",
    "EncodedVoice",
    "Encoding",
    "Ended",
    "Engine",
    "EngineSettings",
    "Event",
    "Started",
    "Utterance",
    "open_engine",
]


def open_engine(settings: EngineSettings) -> Engine:
    """The real engine over a checkpoint; torch is imported here and not before. Call `start` next."""
    raise NotImplementedError(settings)
