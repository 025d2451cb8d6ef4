"""What the brain's service can be told."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field

from common.stream_config import StreamConfig
from services.brain.limits import BrainLimits


class BrainConfig(StreamConfig):
    """brain: a person's turn in, an answer out, token by token."""

    service: ClassVar[str] = "brain"

    port: Annotated[int, Field(ge=0, le=65535, description="Port to listen on; 0 takes a free one.")] = 50051
    max_request_bytes: Annotated[int, Field(ge=1024, le=16 * 2**20, description="Largest request message taken.")] = (
        16 * 2**20
    )
    backend: Annotated[
        str,
        Field(
            pattern="^(offline|(openai|transformers|vllm):.+)$",
            description="What answers: offline, openai:URL, transformers:ID or vllm:ID.",
        ),
    ] = "offline"
    instructions: Annotated[str, Field(max_length=65536, description="Who the brain is, unless a turn says.")] = (
        ""
    )
    slot_count: Annotated[int, Field(ge=1, le=4096, description="Turns answered at once.")] = 8
    reserve_slots: Annotated[int, Field(ge=0, le=4096, description="Of which never for speculative turns.")] = 1
    turn_timeout_s: Annotated[float, Field(gt=0, le=86_400, description="A turn takes at most this long.")] = 600.0
    listen_idle_s: Annotated[float, Field(gt=0, le=3600, description="A person may be silent for so long.")] = 60.0

    @property
    def turn_limits(self) -> BrainLimits:
        """The same for the engine."""
        return BrainLimits(
            slot_count=self.slot_count,
            reserve_slots=self.reserve_slots,
            turn_timeout_s=self.turn_timeout_s,
            listen_idle_s=self.listen_idle_s,
        )
