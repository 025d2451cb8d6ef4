"""What the talker's service can be told."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field

from common.stream_config import StreamConfig
from common.voice_store import default_directory
from services.tts_lm.types import Dtype, EngineOptions, Kernels


class TtsLmConfig(StreamConfig):
    """tts_lm: text as it comes in, codec frames out."""

    service: ClassVar[str] = "tts_lm"

    port: Annotated[int, Field(ge=0, le=65535, description="Port to listen on; 0 takes a free one.")] = 50052
    model: Annotated[str, Field(description="Checkpoint, official layout: a directory or a hub id.")] = "voices/mini"
    device: Annotated[str, Field(description="Where the weights live: cpu, cuda or cuda:N.")] = "cpu"
    dtype: Annotated[Dtype, Field(description="Of the weights; auto: float32 on CPU; int8: on CPU only.")] = "auto"
    kernels: Annotated[
        Kernels, Field(description="Of the CPU: native (compiled here), torch, or auto: what `voicemesh tune` found.")
    ] = "auto"
    slot_count: Annotated[int, Field(ge=1, le=1024, description="Utterances spoken at once.")] = 8
    deterministic: Annotated[
        bool, Field(description="Fix the batch shape: whoever else is served never changes a code.")
    ] = False
    kv_positions: Annotated[
        int | None, Field(ge=64, description="Positions of the whole KV pool; absent: from checkpoint and slots.")
    ] = None
    max_positions: Annotated[
        int | None, Field(ge=64, description="Positions of one utterance, prompt and frames; absent: the checkpoint's.")
    ] = None
    max_text_characters: Annotated[int, Field(ge=1, le=1_000_000, description="Text of one utterance.")] = 65536
    unread_frame_limit: Annotated[
        int, Field(ge=1, le=65536, description="Frames made and not read yet before an utterance sits out.")
    ] = 512
    prefix_positions: Annotated[
        int | None, Field(ge=0, description="Of the KV pool, for prompts that begin alike; absent: a quarter; 0: none.")
    ] = None
    lead_ceiling_s: Annotated[
        float, Field(gt=0, le=60, description="An utterance this far ahead of its listener lets others go first.")
    ] = 1.0
    thread_count: Annotated[
        int | None, Field(ge=1, le=256, description="CPU threads; absent: measured, or up to eight.")
    ] = None
    voice_store: Annotated[
        str,
        Field(default_factory=lambda: str(default_directory()), description="Directory of `voicemesh voices add`."),
    ]
    local_files_only: Annotated[bool, Field(description="Never ask the hub for a model.")] = False

    @property
    def options(self) -> EngineOptions:
        """The same for the engine."""
        return EngineOptions(
            model=self.model,
            device=self.device,
            dtype=self.dtype,
            kernels=self.kernels,
            slot_count=self.slot_count,
            deterministic=self.deterministic,
            kv_positions=self.kv_positions,
            max_positions=self.max_positions,
            max_text_characters=self.max_text_characters,
            unread_frame_limit=self.unread_frame_limit,
            thread_count=self.thread_count,
            prefix_positions=self.prefix_positions,
            lead_ceiling_s=self.lead_ceiling_s,
            local_files_only=self.local_files_only,
        )
