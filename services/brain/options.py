"""What each backend can be told, as plain values: importable without any of their libraries."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

Dtype = Literal["auto", "float32", "bfloat16"]


@dataclass(frozen=True)
class OfflineOptions:
    """How it talks. Zero `tokens_per_s` is as fast as can be; `jitter` is a share of each gap; stalls come every
    `stall_every_tokens` (0: never) and last `stall_s`. `listeners` people are heard at once, others after them."""

    tokens_per_s: float = 30.0
    jitter: float = 0.3
    first_token_s: float = 0.0
    stall_every_tokens: int = 0
    stall_s: float = 0.0
    seed: int = 0
    listeners: int = 4


@dataclass(frozen=True)
class OpenAIOptions:
    """An OpenAI-compatible server. Empty `model` takes the first that the server lists.

    `continues`: an answer goes on after its beginning with vLLM's `continue_final_message`, or by asking for that.
    """

    url: str
    model: str = ""
    api_key: str = "none"
    hears_audio: bool = True
    calls_tools: bool = True
    priorities: bool = False
    """Whether the server takes `priority` (vLLM with `--scheduling-policy priority`)."""
    continues: Literal["vllm", "ask"] = "vllm"
    connect_timeout_s: float = 5.0
    read_timeout_s: float = 60.0
    retries: int = 2
    retry_delay_s: float = 0.25


@dataclass(frozen=True)
class LocalOptions:
    """A model that runs in this process (`transformers`) or in vLLM's engine: a directory or a hub id."""

    model: str
    device: str = "cpu"
    dtype: Dtype = "auto"
    local_files_only: bool = False
    max_model_tokens: int | None = None
    """Longest prompt and answer together; `None`: what the model and the memory allow."""
    gpu_memory_share: float = 0.85
    tensor_parallel: int = 1
    max_audio_per_prompt: int = 32
    slot_count: int = 8
    extra: dict[str, object] = field(default_factory=dict)
    """Passed to vLLM's engine as they are."""


@dataclass(frozen=True)
class BackendOptions:
    """`backend` chooses: `offline`, `openai:URL`, `transformers:ID` or `vllm:ID`; the rest is for whom it concerns."""

    backend: str = "offline"
    offline: OfflineOptions = field(default_factory=OfflineOptions)
    openai: OpenAIOptions = field(default_factory=lambda: OpenAIOptions(""))
    local: LocalOptions = field(default_factory=lambda: LocalOptions(""))
