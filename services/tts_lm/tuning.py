"""Measures which kernels, with how many threads, are fastest for one size of model on this machine.

Runs stacks of random layers as wide as the model's, through the code that serves, one row at a time. The seconds of a
frame follow from it: one pass of the talker and fifteen of the code predictor, without the sampling between them.
Candidates take turns, so that other load falls on all alike. Decides nothing about accuracy.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from services.tts_lm.kernels import Choice, default_threads, native_library, usable_cores
from services.tts_lm.model.config import BlockConfig, ModelConfig
from services.tts_lm.model.kv_cache import KvPool, Span
from services.tts_lm.model.layers import Rotary, run_stack
from services.tts_lm.model.matrix import Matrix, quantised
from services.tts_lm.model.weights import LayerWeights, StackWeights
from services.tts_lm.native.stack import NativeBatch, NativeStack

COLD_BYTES = 256 << 20
"""Weights enough to measure: more than caches hold, where the model itself has as much."""
POSITION = 100
ROUNDS = 5


@dataclass(frozen=True)
class Timing:
    """Median and least seconds of a frame's layers."""

    choice: Choice
    median_s: float
    least_s: float


def candidates(config: ModelConfig) -> list[Choice]:
    """Every kernel that is here, with one thread, then twice as many as long as there are cores."""
    kernels = ["native", "torch"] if native_library(config) is not None else ["torch"]
    threads = [1]
    while threads[-1] * 2 <= usable_cores():
        threads.append(threads[-1] * 2)
    threads = sorted({*threads, default_threads(config)})
    return [Choice(kernel, count) for kernel in kernels for count in threads]  # type: ignore[arg-type]


@torch.inference_mode()
def measure(config: ModelConfig, dtype: str, rounds: int = ROUNDS) -> list[Timing]:
    """Every candidate, the fastest (by its median) first. Torch's threads are left as they were."""
    passes = [(config.talker, 1), (config.predictor, config.codebook_count - 1)]
    stacks = [(_Stack(block, dtype), block, times) for block, times in passes]
    choices, before = candidates(config), torch.get_num_threads()
    seconds: dict[Choice, list[float]] = {choice: [] for choice in choices}
    try:
        steps = {
            choice: [(s.step(choice, config), b.layer_count * n, s.layers) for s, b, n in stacks] for choice in choices
        }
        for turn in range(rounds + 1):
            for choice, step in steps.items():
                _set_threads(choice, config)
                frame = sum(_timed(run) * wanted / measured for run, wanted, measured in step)
                seconds[choice] += [frame] if turn else []  # the first turn warms up
    finally:
        torch.set_num_threads(before)
    timings = [Timing(choice, statistics.median(each), min(each)) for choice, each in seconds.items()]
    return sorted(timings, key=lambda timing: timing.median_s)


def _set_threads(choice: Choice, config: ModelConfig) -> None:
    library = native_library(config)
    if choice.kernels == "native" and library is not None:
        library.set_threads(choice.thread_count)
        torch.set_num_threads(1)
    else:
        torch.set_num_threads(choice.thread_count)


def _timed(run: Callable[[], object]) -> float:
    began = time.perf_counter()
    run()
    return time.perf_counter() - began


class _Stack:
    """Random layers of one kind: all that the model has, or as many as make `COLD_BYTES`."""

    def __init__(self, block: BlockConfig, dtype: str) -> None:
        wide = torch.float32 if dtype == "float32" else torch.bfloat16
        layer = self._layer(block, dtype, wide)
        size = sum(_bytes(m) for m in (layer.qkv, layer.output, layer.gate_up, layer.down))
        self.layers = min(block.layer_count, -(-COLD_BYTES // size))
        self._block = replace(block, layer_count=self.layers)
        more = (self._layer(block, dtype, wide) for _ in range(self.layers - 1))
        self._weights = StackWeights((layer, *more), torch.ones(block.hidden_size, dtype=wide))
        self._wide = wide

    def step(self, choice: Choice, config: ModelConfig) -> Callable[[], Tensor]:
        """One row through all layers on these kernels."""
        pool = KvPool(self._block, POSITION + 1, self._wide, torch.device("cpu"))
        span, positions = Span(0, POSITION + 1), torch.tensor([POSITION])
        library = native_library(config)
        if choice.kernels == "native" and library is not None:
            stack, batch = (
                NativeStack(library, self._weights, self._block, POSITION + 1),
                NativeBatch(pool.memory, [span], [1]),
            )
            row = torch.randn(1, self._block.hidden_size)
            return lambda: stack(row, positions, batch)
        rotary = Rotary(self._block, POSITION + 1, self._wide, torch.device("cpu"))
        plain = torch.randn(1, self._block.hidden_size, dtype=self._wide)
        at, attention = rotary.at(positions), pool.step([span])
        return lambda: run_stack(plain, self._weights, self._block, rotary, at, attention)

    @staticmethod
    def _layer(block: BlockConfig, dtype: str, wide: torch.dtype) -> LayerWeights:
        hidden, inner, size = block.hidden_size, block.intermediate_size, block.head_size
        heads, both = block.head_count * size, block.head_count + block.kv_head_count

        def matrix(rows: int, columns: int) -> Matrix:
            values = (torch.rand(rows, columns) - 0.5) / columns**0.5
            return quantised(values) if dtype == "int8" else values.to(wide)

        def ones(*shape: int) -> Tensor:
            return torch.ones(shape, dtype=wide)

        return LayerWeights(
            ones(hidden), matrix((both + block.kv_head_count) * size, hidden), ones(both, size), matrix(hidden, heads),
            ones(hidden), matrix(2 * inner, hidden), matrix(hidden, inner),
        )  # fmt: skip


def _bytes(matrix: Matrix) -> int:
    values = matrix if isinstance(matrix, Tensor) else matrix.values
    return values.numel() * values.element_size()
