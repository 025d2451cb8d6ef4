"""What the codec engine promises to whoever drives it: requests, events and two Protocols.

Plain values only. This module refuses to know tensors, protobuf, gRPC and settings, so that the
edge, the tests and the fakes can be written against it without importing torch.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Protocol

from common.errors import MeshError
from common.stream import FinishReason

Codes = tuple[tuple[int, ...], ...]
"""Frames of codes: T frames, each of Q integers in [0, codebook_size)."""


class Encoding(IntEnum):
    """How samples lie in bytes; the values of `voicemesh.stream.v1.AudioEncoding`."""

    UNSPECIFIED = 0
    PCM_S16LE = 1
    PCM_F32LE = 2
    OPUS = 3
    MULAW = 4


@dataclass(frozen=True, slots=True)
class DecodeSpec:
    """One utterance to decode.

    `encoding` UNSPECIFIED means PCM_S16LE; `sample_rate_hz` and `channel_count` 0 mean 24000 (the
    codec's own rate) and 1. `prime_codes` run through the state and are not heard. `continue_from`
    is the utterance of the same answer whose state is kept: it may still be running (this one then
    waits for its end and takes over its slot) or have ended COMPLETED; priming as well is refused.
    """

    encoding: Encoding = Encoding.UNSPECIFIED
    sample_rate_hz: int = 0
    channel_count: int = 0
    prime_codes: Codes = ()
    continue_from: Utterance | None = None


@dataclass(frozen=True, slots=True)
class Started:
    """The utterance holds a slot (or is next in line for its predecessor's)."""


@dataclass(frozen=True, slots=True)
class AudioBatch:
    """Sound of one packet.

    `first_sample_offset` counts from the utterance's first sample, at the output rate, per channel;
    `sample_count` is per channel too. `payload` is interleaved samples, or for OPUS exactly one
    20 ms packet. A frame belongs to the batch that holds its last sample: `frame_count` frames from
    `first_frame_index` on, possibly none (20 ms packets, or a resampler that holds a few samples
    back), and over the utterance every frame once. `produced_time_s` is Unix time.
    """

    first_sample_offset: int
    sample_count: int
    payload: bytes
    first_frame_index: int
    frame_count: int
    produced_time_s: float


@dataclass(frozen=True, slots=True)
class Ended:
    """Exactly one per utterance, always last. Times in seconds; `time_to_first_s` is None when nothing sounded."""

    reason: FinishReason
    error: MeshError | None
    frame_count: int
    sample_count: int
    time_to_first_s: float | None
    compute_s: float


Event = Started | AudioBatch | Ended


class Utterance(Protocol):
    """One utterance in the engine. All methods run on the event loop and never block."""

    def feed(self, frames: Sequence[Sequence[int]]) -> None:
        """Append frames. InvalidRequest for a wrong count or a code out of range, OutOfOrder after
        `flush`, Overloaded when more frames wait than the queue holds. Frames after the end are ignored."""

    def flush(self) -> None:
        """No more frames: sound what is left, then end COMPLETED. Twice is OutOfOrder."""

    def cancel(self) -> None:
        """End CANCELLED within one tick; after this call no audio event is delivered. Idempotent."""

    def __aiter__(self) -> AsyncIterator[Event]:
        """Started, any number of AudioBatch, exactly one Ended. One reader."""


@dataclass(frozen=True, slots=True)
class EncodeSpec:
    """How reference audio arrives.

    UNSPECIFIED: a file (WAV, FLAC, MP3, Ogg Vorbis or Opus) that says its own rate and channels.
    PCM_S16LE, PCM_F32LE, MULAW: raw samples at `sample_rate_hz` (required) with `channel_count`
    channels (0 means 1). OPUS: an Ogg Opus file.
    """

    encoding: Encoding = Encoding.UNSPECIFIED
    sample_rate_hz: int = 0
    channel_count: int = 0


@dataclass(frozen=True, slots=True)
class EncodedVoice:
    """Reference audio as the model knows it; `speaker_vector` is None when the checkpoint has no speaker encoder."""

    codes: Codes
    speaker_vector: tuple[float, ...] | None


@dataclass(frozen=True, slots=True)
class CodecInfo:
    """What `GetCodec` answers."""

    frame_rate_hz: float
    samples_per_frame: int
    sample_rate_hz: int
    codebook_count: int
    codebook_size: int
    supports_encode: bool
    slot_count: int
    free_slot_count: int
    dtype: str
    device: str


@dataclass(frozen=True, slots=True)
class EngineSettings:
    """Tunables of the engine; a server's Config turns into this.

    `model_dir` is a checkpoint in the official layout (the directory that holds `speech_tokenizer/`)
    or the speech tokenizer's own directory. `dtype`: float32 (exact, the default), float16, bfloat16
    (rounded: never chosen by itself) or float64. Counts are frames unless the name says otherwise.
    `thread_count`: cores of one step on a CPU; 0 takes one for a small model and leaves torch its
    default for a large one. `compile_step` lets torch compile every shape before it is captured.
    """

    model_dir: str
    device: str = "cpu"
    dtype: str = "float32"
    slot_count: int = 16
    max_frames_per_step: int = 8
    max_queued_frames: int = 16_384
    max_prime_frames: int = 1500
    max_parked_states: int = 16
    max_primed_voices: int = 16
    max_queued_events: int = 256
    max_reference_s: float = 60.0
    max_reference_bytes: int = 64 * 1024 * 1024
    max_cached_references: int = 64
    encode: bool = True
    thread_count: int = 0
    compile_step: bool = False


class Engine(Protocol):
    """The codec: many utterances at once, each exact whatever it shares a step with."""

    async def start(self) -> None:
        """Load weights, warm every bucket, capture graphs; return when READY."""

    def submit(self, request: DecodeSpec) -> Utterance:
        """Admit one utterance. Overloaded when no slot is free, InvalidRequest for a format or prime
        codes that cannot be, OutOfOrder when the utterance to continue failed or was cancelled,
        NotReady before `start` and when its state is no longer held."""

    async def encode(self, request: EncodeSpec, payload: bytes) -> EncodedVoice:
        """Reference audio → codes and speaker vector, computed off the loop.

        InvalidRequest: not audio, too long, silent, clipped, NaN, or no encoder here. Overloaded: too
        many at once. NotReady: `start` has not returned."""

    def info(self) -> CodecInfo:
        """What this engine is and how full; valid after `start`."""

    async def close(self) -> None:
        """Cancel what runs, end the thread, free the device. Idempotent."""
