"""What the codec's service can be told."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from common.stream_config import StreamConfig
from services.codec.types import EngineSettings


class CodecConfig(StreamConfig):
    """codec: codec frames in, sound out; reference audio in, codes out."""

    service: ClassVar[str] = "codec"

    port: Annotated[int, Field(ge=0, le=65535, description="Port to listen on; 0 takes a free one.")] = 50053
    model: Annotated[
        str, Field(description="Checkpoint in the official layout, or its speech_tokenizer directory.")
    ] = "voices/mini"
    device: Annotated[str, Field(description="Where the weights live: cpu, cuda or cuda:N.")] = "cpu"
    dtype: Annotated[
        Literal["float32", "float16", "bfloat16", "float64"],
        Field(description="Of the weights; float16 and bfloat16 round what is heard."),
    ] = "float32"
    slot_count: Annotated[int, Field(ge=1, le=4096, description="Utterances decoded at once.")] = 16
    max_frames_per_step: Annotated[int, Field(ge=1, le=256, description="Frames of one utterance in one step.")] = 8
    max_queued_frames: Annotated[int, Field(ge=1, le=1_000_000, description="Frames of one utterance that wait.")] = (
        16_384
    )
    max_prime_frames: Annotated[int, Field(ge=0, le=100_000, description="Frames of `prime_codes`.")] = 1500
    max_parked_states: Annotated[int, Field(ge=0, le=4096, description="States kept for `continue_state`.")] = 16
    max_primed_voices: Annotated[int, Field(ge=0, le=4096, description="Primed states kept for use again.")] = 16
    max_queued_events: Annotated[int, Field(ge=1, le=65536, description="Packets of one utterance not read yet.")] = 256
    max_reference_s: Annotated[float, Field(gt=0, le=3600, description="Length of reference audio.")] = 60.0
    max_reference_bytes: Annotated[int, Field(ge=1024, le=2**30, description="Size of reference audio.")] = 64 * 2**20
    max_cached_references: Annotated[int, Field(ge=0, le=65536, description="Encoded references kept.")] = 64
    thread_count: Annotated[
        int, Field(ge=0, le=1024, description="Cores of one step on a CPU; 0: one for a small model, else torch's own.")
    ] = 0
    compile_step: Annotated[
        bool, Field(description="Let torch compile every shape of a step: minutes before READY (docs/gpu.md).")
    ] = False
    encode: Annotated[bool, Field(description="Load the encoder where the checkpoint has one.")] = True

    @property
    def settings(self) -> EngineSettings:
        """The same for the engine."""
        shared = EngineSettings.__dataclass_fields__.keys() - {"model_dir"}
        return EngineSettings(model_dir=self.model, **{name: getattr(self, name) for name in shared})
