"""Which kernels run a model on this machine, and with how many threads: asked for, measured once, or by default.

`voicemesh tune` measures and writes what it found into the user's cache; here it is read. Without it the compiled
kernels run wherever set-up has built them, because they were faster in every case measured (docs/performance.md).
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import torch

from common.errors import InvalidRequest
from common.native import cache_directory, processor
from services.tts_lm.model.config import ModelConfig
from services.tts_lm.native import KERNELS
from services.tts_lm.native.library import Library
from services.tts_lm.types import Kernels

DEFAULT_THREADS = 8
"""At most, when nobody measured: a few cores read as fast as the memory gives, and more wait for one another."""
SMALL_MATRIX = 512 * 2048
"""Products up to this size cost less than waking a second thread, and on a busy machine that thread makes the first one
wait (measured: 395 ms instead of 7 ms per frame of a tiny model at a load of 4)."""


@dataclass(frozen=True)
class Choice:
    """What runs one model's products."""

    kernels: Literal["native", "torch"]
    thread_count: int


def choose(config: ModelConfig, dtype: str, device: torch.device, asked: Kernels, thread_count: int | None) -> Choice:
    """Raises `InvalidRequest` when kernels were asked for that are not here."""
    if device.type != "cpu":
        return Choice("torch", thread_count or torch.get_num_threads())
    able = native_library(config) is not None
    if asked == "native" and not able:
        raise InvalidRequest(
            "The native kernels are not built for this machine and model: `voicemesh tune` builds them where there is "
            "a C++ compiler."
        )
    measured = read_measured(config, dtype)
    kernels = asked if asked != "auto" else measured.kernels if measured else "native"
    if not able:
        kernels = "torch"
    threads = thread_count or (measured.thread_count if measured else default_threads(config))
    return Choice(kernels, threads)


def default_threads(config: ModelConfig) -> int:
    """One for a small model, else the cores of this process, eight at most."""
    blocks = (config.talker, config.predictor)
    if max(block.hidden_size * block.intermediate_size for block in blocks) <= SMALL_MATRIX:
        return 1
    return min(usable_cores(), DEFAULT_THREADS)


def usable_cores() -> int:
    """The cores that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def native_library(config: ModelConfig) -> Library | None:
    """The compiled kernels, where they are built and can run this model."""
    path = KERNELS.built()
    if path is None:
        return None
    library = Library(path)
    return library if library.supports((config.talker.head_size, config.predictor.head_size)) else None


def read_measured(config: ModelConfig, dtype: str) -> Choice | None:
    """What `voicemesh tune` found for this machine, this size of model and this dtype; None where it never ran."""
    try:
        found = json.loads(_file().read_text(encoding="utf-8")).get(_key(config, dtype))
        return None if found is None else Choice(found["kernels"], int(found["thread_count"]))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def write_measured(config: ModelConfig, dtype: str, choice: Choice) -> Path:
    """Keep a choice; the file's other entries stay."""
    path = _file()
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        entries = {}
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_suffix(f".{os.getpid()}")
    scratch.write_text(json.dumps(entries | {_key(config, dtype): asdict(choice)}, indent=1), encoding="utf-8")
    scratch.replace(path)
    return path


def _file() -> Path:
    return cache_directory() / "kernels.json"


def _key(config: ModelConfig, dtype: str) -> str:
    """Everything that a measurement depends on."""
    machine = f"{processor()} {usable_cores()} torch {torch.__version__}"
    sizes = [
        (b.layer_count, b.hidden_size, b.intermediate_size, b.head_count, b.kv_head_count, b.head_size)
        for b in (config.talker, config.predictor)
    ]
    return f"{hashlib.sha256(machine.encode()).hexdigest()[:12]} {sizes} {dtype}"
