"""What goes into and comes out of the talker's engine: plain values, importable without torch, protobuf or grpc.

`engine.py` re-exports every name here; the edge and the tests are written against these and nothing else.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

from common.errors import MeshError
from common.stream import FinishReason

Layout = Literal["streaming", "whole"]
TextItem = str | Sequence[int]


Dtype = Literal["auto", "float32", "bfloat16", "int8"]
Kernels = Literal["auto", "native", "torch"]


@dataclass(frozen=True)
class EngineOptions:
    """What `services.tts_lm.load.create_engine` needs. `model` is a directory in the official layout or a hub id.

    `dtype` "auto" is float32 on CPU and bfloat16 on CUDA; int8 is of the layers' weights alone, on CPU. `kernels`
    "auto" is what `voicemesh tune` found faster here, else the compiled ones where they are built. `deterministic`
    fixes the batch shape, so that whoever else is served never changes a code. `kv_positions` is the whole KV pool,
    shared by all slots; `max_positions` bounds one sequence (prompt and frames). `None` chooses from the checkpoint and
    `slot_count`. `prefix_positions` of the pool may keep prompts that begin alike (`None`: a quarter). An utterance
    that is `lead_ceiling_s` ahead of its listener sits out while others need the step.
    """

    model: str
    device: str = "cpu"
    dtype: Dtype = "auto"
    kernels: Kernels = "auto"
    slot_count: int = 8
    deterministic: bool = False
    kv_positions: int | None = None
    max_positions: int | None = None
    max_text_characters: int = 65536
    unread_frame_limit: int = 512
    thread_count: int | None = None
    local_files_only: bool = False
    prefix_positions: int | None = None
    lead_ceiling_s: float = 1.0


@dataclass(frozen=True)
class SamplingParams:
    """How codes are drawn. `None` means the checkpoint's generation_config.json; `seed=None` draws one and reports it.

    `greedy` makes talker and code predictor both take the most likely code.
    """

    seed: int | None = None
    greedy: bool = False
    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    repetition_penalty: float | None = None
    predictor_temperature: float | None = None
    predictor_top_k: int | None = None
    predictor_top_p: float | None = None


@dataclass(frozen=True)
class CloneVoice:
    """A voice made from reference audio: `codes` frame-major and flat; without codes the speaker vector is used
    alone.
    """

    speaker_vector: tuple[float, ...]
    codes: tuple[int, ...] = ()
    reference_text: str = ""


@dataclass(frozen=True)
class ResumePoint:
    """Speech already made elsewhere: `codes` frame-major and flat. One prefill rebuilds it; the next frame follows it.

    The text is sent again from its beginning; `text_token_count` is what the earlier replica had consumed, for
    checking.
    """

    codes: tuple[int, ...]
    text_token_count: int = 0


@dataclass(frozen=True)
class UtteranceRequest:
    """One utterance. `voice=None` is the model's first voice (none for voice design); language "" or "auto" detects.

    `max_lead_frames=None` runs free; otherwise that many frames may be produced before `credit` adds more.
    `text_timeout_s=None` waits for late text for as long as the caller does.
    """

    voice: str | CloneVoice | None = None
    language: str = ""
    instruct: str = ""
    layout: Layout = "streaming"
    sampling: SamplingParams = field(default_factory=SamplingParams)
    packet_ramp: tuple[int, ...] = (1,)
    max_frames: int | None = None
    max_lead_frames: int | None = None
    reference_behaviour: bool = False
    resume: ResumePoint | None = None
    text_timeout_s: float | None = None


@dataclass(frozen=True)
class Started:
    """The utterance has a slot. `seed` repeats it exactly. `prefix_cache_hit`: the beginning of its prompt was there
    already when it came.
    """

    seed: int
    prefix_cache_hit: bool


@dataclass(frozen=True)
class FrameBatch:
    """Consecutive frames, one tuple of codes each; `text_token_count` tokens were consumed up to the last of them.

    `produced_time_s` is seconds since the Unix epoch. `text_offset` is how many characters of the utterance's text
    those tokens are, where the engine knows.
    """

    first_frame_index: int
    codes: tuple[tuple[int, ...], ...]
    text_token_count: int
    produced_time_s: float
    text_offset: int | None = None


@dataclass(frozen=True)
class Ended:
    """The one last event. `frame_count` frames were delivered; `time_to_first_s` counts from the first text."""

    reason: FinishReason
    error: MeshError | None
    text_token_count: int
    frame_count: int
    time_to_first_s: float
    compute_s: float


Event = Started | FrameBatch | Ended


@dataclass(frozen=True)
class ModelInfo:
    """Everything GetModel tells; all of it from the checkpoint and the running engine."""

    model_id: str
    model_type: str
    frame_rate_hz: float
    samples_per_frame: int
    sample_rate_hz: int
    codebook_count: int
    codebook_size: int
    tokenizer_fingerprint: str
    languages: tuple[str, ...]
    supports_instruct: bool
    supports_clone: bool
    slot_count: int
    free_slot_count: int
    dtype: str
    device: str
    steady_character_count: int = 0
    speakable_characters: str = ""


@dataclass(frozen=True)
class VoiceInfo:
    """A preset voice; `language` and `dialect` are empty where the checkpoint names none."""

    name: str
    language: str
    dialect: str
    description: str


class Utterance(Protocol):
    """One utterance in the engine. Every method is called on the event loop and returns at once."""

    def feed(self, item: TextItem) -> None:
        """Add text: a string delta or token ids, never both kinds in one utterance.

        Raises `InvalidRequest` (mixed kinds, ids out of range) or `OutOfOrder` (text after flush)."""
        ...

    def flush(self) -> None:
        """No more text: say what is left, then end. A second flush does nothing."""
        ...

    def credit(self, frames: int) -> None:
        """Allow `frames` more frames; without any credit and any lead limit the utterance runs free."""
        ...

    def cancel(self) -> None:
        """Nobody wants the rest: no frame is delivered after this, and the slot is free within one step."""
        ...

    def __aiter__(self) -> AsyncIterator[Event]:
        """`Started`, then `FrameBatch`es, then exactly one `Ended`. A fault before the slot gives `Ended` alone."""
        ...


class Engine(Protocol):
    """The talker behind the edge; fakes implement the same."""

    async def start(self) -> None:
        """Load, warm up; returns when ready to serve. Raises `MeshError` with a sentence when it cannot."""
        ...

    def submit(self, request: UtteranceRequest) -> Utterance:
        """Admit one utterance, without blocking; refuses by raising `MeshError` (`Overloaded`, `UnknownName` …)."""
        ...

    async def close(self) -> None:
        """Stop the loop; utterances still running end CANCELLED."""
        ...

    def info(self) -> ModelInfo:
        """What GetModel answers."""
        ...

    def voices(self) -> tuple[VoiceInfo, ...]:
        """The preset voices, in the checkpoint's order."""
        ...
