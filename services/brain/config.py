"""What the brain's service can be told."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field, SecretStr

from common.stream_config import StreamConfig
from services.brain.limits import BrainLimits
from services.brain.options import BackendOptions, LocalOptions, OfflineOptions, OpenAIOptions


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
    instructions: Annotated[str, Field(max_length=65536, description="Who the brain is, unless a turn says.")] = ""
    slot_count: Annotated[int, Field(ge=1, le=4096, description="Turns answered at once.")] = 8
    reserve_slots: Annotated[int, Field(ge=0, le=4096, description="Of which never for speculative turns.")] = 1
    turn_timeout_s: Annotated[float, Field(gt=0, le=86_400, description="A turn takes at most this long.")] = 600.0
    listen_idle_s: Annotated[float, Field(gt=0, le=3600, description="A person may be silent for so long.")] = 60.0
    tool_timeout_s: Annotated[float, Field(gt=0, le=3600, description="A tool may take so long.")] = 60.0
    max_audio_s: Annotated[float, Field(gt=0, le=3600, description="A person's turn may last so long.")] = 120.0
    max_tokens: Annotated[int, Field(ge=1, le=1_000_000, description="Longest answer, tool calls included.")] = 4096
    check_interval_s: Annotated[
        float, Field(gt=0, le=3600, description="Between two looks at whether the backend is alive.")
    ] = 5.0

    offline_tokens_per_s: Annotated[
        float, Field(ge=0, le=10_000, description="Pace of the offline brain; 0: as fast as can be.")
    ] = 30.0
    offline_jitter: Annotated[float, Field(ge=0, le=1, description="Share by which each gap of it varies.")] = 0.3
    offline_first_token_s: Annotated[float, Field(ge=0, le=60, description="Before its first word.")] = 0.0
    offline_stall_every_tokens: Annotated[int, Field(ge=0, description="It halts after so many; 0: never.")] = 0
    offline_stall_s: Annotated[float, Field(ge=0, le=600, description="For how long it halts then.")] = 0.0
    offline_seed: Annotated[int, Field(ge=0, description="Of the jitter in that pace.")] = 0
    offline_listeners: Annotated[
        int, Field(ge=1, le=64, description="People it hears at once, 19 MB each; others are recognised after them.")
    ] = 4

    openai_model: Annotated[str, Field(description="Model of that server; empty: the first that it lists.")] = ""
    openai_api_key: Annotated[SecretStr, Field(description="Its key.")] = SecretStr("none")
    openai_hears_audio: Annotated[bool, Field(description="Whether that model takes audio.")] = True
    openai_calls_tools: Annotated[bool, Field(description="Whether it calls tools.")] = True
    openai_priorities: Annotated[bool, Field(description="Whether that server takes `priority`.")] = False
    openai_continues: Annotated[
        Literal["vllm", "ask"],
        Field(description="How an answer goes on: vLLM option, or asking."),
    ] = "vllm"

    device: Annotated[str, Field(description="Of transformers and vllm: cpu, cuda or cuda:N.")] = "cpu"
    dtype: Annotated[Literal["auto", "float32", "bfloat16"], Field(description="Of their weights.")] = "auto"
    local_files_only: Annotated[bool, Field(description="Never ask the hub for a model.")] = False
    max_model_tokens: Annotated[
        int | None, Field(ge=64, description="Longest prompt and answer together; absent: what the model allows.")
    ] = None
    gpu_memory_share: Annotated[float, Field(gt=0, le=1, description="Of the GPU's memory, for vllm.")] = 0.85
    tensor_parallel: Annotated[int, Field(ge=1, le=64, description="GPUs that share one model, for vllm.")] = 1

    @property
    def turn_limits(self) -> BrainLimits:
        """The limits of turns, for the engine."""
        return BrainLimits(
            slot_count=self.slot_count,
            reserve_slots=self.reserve_slots,
            turn_timeout_s=self.turn_timeout_s,
            listen_idle_s=self.listen_idle_s,
            tool_timeout_s=self.tool_timeout_s,
            max_audio_s=self.max_audio_s,
            max_tokens=self.max_tokens,
            check_interval_s=self.check_interval_s,
        )

    @property
    def options(self) -> BackendOptions:
        """The backend and what it is told."""
        return BackendOptions(
            backend=self.backend,
            offline=OfflineOptions(
                tokens_per_s=self.offline_tokens_per_s,
                jitter=self.offline_jitter,
                first_token_s=self.offline_first_token_s,
                stall_every_tokens=self.offline_stall_every_tokens,
                stall_s=self.offline_stall_s,
                seed=self.offline_seed,
                listeners=self.offline_listeners,
            ),
            openai=OpenAIOptions(
                url="",
                model=self.openai_model,
                api_key=self.openai_api_key.get_secret_value(),
                hears_audio=self.openai_hears_audio,
                calls_tools=self.openai_calls_tools,
                priorities=self.openai_priorities,
                continues=self.openai_continues,
            ),
            local=LocalOptions(
                model="",
                device=self.device,
                dtype=self.dtype,
                local_files_only=self.local_files_only,
                max_model_tokens=self.max_model_tokens,
                gpu_memory_share=self.gpu_memory_share,
                tensor_parallel=self.tensor_parallel,
                slot_count=self.slot_count,
            ),
        )
