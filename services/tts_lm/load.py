"""From options to an engine: finds the checkpoint, weighs it against the machine, loads, warms up.

The only file that puts the torch side under the engine; everything above is importable without torch.
"""

from __future__ import annotations

import functools
import sys
from pathlib import Path
from typing import Any

import torch

from common.errors import Overloaded
from common.observer import NOBODY, Observer
from common.slots import Lease
from services.tts_lm.engine import OpenModel, TalkerEngine
from services.tts_lm.graphed import GraphedRunner
from services.tts_lm.kernels import choose, native_library
from services.tts_lm.model.checkpoint import locate, weight_files
from services.tts_lm.model.config import CheckpointError, ModelConfig, load_config
from services.tts_lm.model.kv_cache import KvPool
from services.tts_lm.model.normal import variants
from services.tts_lm.model.prompt import Script, Speaker, build_prompt
from services.tts_lm.model.repertoire import load_repertoire
from services.tts_lm.model.tokenizer import Tokenizer, load_tokenizer
from services.tts_lm.model.weights import ModelWeights, load_model_weights
from services.tts_lm.native.library import Library
from services.tts_lm.pages import PageAllocator
from services.tts_lm.runner import PAGE_SIZE, TorchRunner
from services.tts_lm.scheduler import StepPlan
from services.tts_lm.sequence import ResolvedSampling, Sequence, Terms
from services.tts_lm.types import EngineOptions

KV_BYTES = 1 << 30
"""Memory of the KV pool when nobody says: about a minute of speech in each of eight slots at the 0.6B dimensions in
float32.
"""
SWITCH_INTERVAL_S = 0.0005
"""How long the device's thread may keep the interpreter: tensor operations give it up anyway, so Python's 5 ms only
makes the event loop later (p95 7.3 ms late instead of 4.0 beside a tiny model; docs/performance.md)."""


def create_engine(options: EngineOptions, observer: Observer = NOBODY) -> TalkerEngine:
    """The engine for `options`; nothing is loaded before `start`."""
    return TalkerEngine(functools.partial(open_model, options), options, observer)


def open_model(options: EngineOptions) -> OpenModel:
    """Load everything; raises a `MeshError` with a sentence when it cannot."""
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    device = _device(options.device)
    dtype = _dtype(options.dtype, device)
    wide = torch.float32 if dtype == "float32" else torch.bfloat16  # of what int8 does not hold: tables, heads, keys
    directory = locate(options.model, local_files_only=options.local_files_only)
    config = load_config(directory)
    tokenizer = load_tokenizer(directory)
    _warm_text(tokenizer)
    positions, longest = _positions(options, config, wide)
    kv_bytes = positions * KvPool.bytes_per_position(config.talker, wide)
    _refuse_what_does_not_fit(directory, config, wide, device, kv_bytes)
    chosen = choose(config, dtype, device, options.kernels, options.thread_count)
    library = native_library(config) if chosen.kernels == "native" else None
    if library is not None:
        library.set_threads(chosen.thread_count)
        torch.set_num_threads(1)  # what is left to torch is small: its second thread took 12 ms to find e^x of 2048
    elif device.type == "cpu":
        torch.set_num_threads(chosen.thread_count)
    try:
        weights = load_model_weights(directory, config, dtype, device)
        runner = _runner(weights, config, options, positions, longest, library)
        warm_up(runner, config, tokenizer)
    except (torch.OutOfMemoryError, MemoryError) as error:
        raise Overloaded(f"{directory} does not fit into the memory of {device}") from error
    name = options.model if not Path(options.model).exists() else config.model_id
    return OpenModel(config, tokenizer, runner, name, dtype, str(device), longest, load_repertoire(directory))


def _runner(
    weights: ModelWeights,
    config: ModelConfig,
    options: EngineOptions,
    positions: int,
    longest: int,
    library: Library | None,
) -> TorchRunner | GraphedRunner:
    """Graphs where there is a device to replay them; rows as they come on a CPU, which launches nothing."""
    sizes: dict[str, Any] = {
        "slot_count": options.slot_count,
        "position_count": positions,
        "max_positions": longest,
        "deterministic": options.deterministic,
    }
    if weights.frame_table.device.type != "cuda":
        return TorchRunner(weights, config, **sizes, library=library)
    runner = GraphedRunner(weights, config, **sizes)
    runner.capture()
    return runner


def warm_up(runner: TorchRunner | GraphedRunner, config: ModelConfig, tokenizer: Tokenizer) -> None:
    """One prompt and two steps in the first slot, so that the first utterance pays for no lazy initialisation."""
    prompt = build_prompt(
        config,
        role=tokenizer.role(),
        instruct=(),
        language_id=None,
        speaker=Speaker(vector=(0.0,) * config.talker.hidden_size),
        layout="streaming",
    )
    script = Script(config)
    script.feed(tokenizer.encode("a"))
    script.finish()
    terms = Terms(4, 64, None, 4, (1,), None, True, config.codec.eos, 1 / config.frame_rate_hz)
    sampling = ResolvedSampling(0, False, 0.9, 50, 1.0, 1.05, False, 0.9, 50, 1.0)
    sequence = Sequence(Lease(0, 0), prompt, script, sampling, (0.0,) * config.talker.hidden_size, terms)
    pages = PageAllocator(runner.page_count, runner.page_size)
    for _ in range(3):
        rows = sequence.next_row_count()
        pages.grow(sequence.pages, sequence.position + rows)
        plan = StepPlan(steps=(sequence,)) if sequence.prefilled else StepPlan(prefills=(sequence,))
        runner.execute(plan)
        sequence.advance(rows)


def _warm_text(tokenizer: Tokenizer) -> None:
    """Build the Unicode tables and the pair memory's first entries before anyone waits for them."""
    variants("e")
    tokenizer.target("Hello.")


def _device(name: str) -> torch.device:
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise CheckpointError("a CUDA device was asked for, and this machine has none that torch can use")
    try:
        return torch.device(name)
    except RuntimeError as error:
        raise CheckpointError(f"there is no device {name!r}; it is cpu, cuda or cuda:N") from error


def _dtype(name: str, device: torch.device) -> str:
    if name == "auto":
        return "float32" if device.type == "cpu" else "bfloat16"
    if name == "int8" and device.type != "cpu":
        raise CheckpointError(f"int8 weights are for the CPU; on {device} take bfloat16")
    return name


def _positions(options: EngineOptions, config: ModelConfig, dtype: torch.dtype) -> tuple[int, int]:
    """KV positions of the pool, in whole pages, and of the longest utterance."""
    longest = min(options.max_positions or config.talker.max_positions, config.talker.max_positions)
    wanted = options.kv_positions
    if wanted is None:
        affordable = KV_BYTES // KvPool.bytes_per_position(config.talker, dtype)
        wanted = min(max(affordable, options.slot_count * 256), options.slot_count * longest)
    pages = max(wanted // PAGE_SIZE, 1)
    return pages * PAGE_SIZE, min(longest, pages * PAGE_SIZE)


def _refuse_what_does_not_fit(
    directory: Path, config: ModelConfig, dtype: torch.dtype, device: torch.device, kv_bytes: int
) -> None:
    """Better a sentence now than a process killed in the middle of loading."""
    stored = sum(path.stat().st_size for path in weight_files(directory))
    embedding = config.text_vocab_size * config.text_hidden_size * 2
    needed = (stored - embedding) * dtype.itemsize // 2 + embedding + kv_bytes
    free = _free_bytes(device)
    if free is not None and needed > free:
        raise Overloaded(
            f"{directory} needs about {needed / 2**30:.1f} GiB ({kv_bytes / 2**30:.1f} of them for speech in progress) "
            f"and {free / 2**30:.1f} GiB are free on {device}; take fewer slots, fewer kv_positions or bfloat16"
        )


def _free_bytes(device: torch.device) -> int | None:
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:  # not Linux: nothing to compare with
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")), None)
