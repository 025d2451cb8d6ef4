"""What this machine's memory and arithmetic give at most, measured beside a benchmark; and what a frame asks of them.

Rates are the best of several short runs: of reading memory in order (torch and the compiled kernels, whichever reads
faster) and of float32 multiply-adds in one large product; on a GPU of a copy, counting what is read and written, and of
bfloat16 and float32 products. A frame's floor is the larger of bytes over the one and operations over the other.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

READ_BYTES = 256 << 20
PRODUCT_SIZE = 1536
RUNS = 12


@dataclass(frozen=True)
class Machine:
    """Bytes and floating-point operations per second."""

    bytes_per_s: float
    operations_per_s: float

    def floor_s(self, byte_count: float, operation_count: float) -> float:
        return max(byte_count / self.bytes_per_s, operation_count / self.operations_per_s)


@dataclass(frozen=True)
class Frame:
    """What one frame of speech reads and computes at batch 1."""

    byte_count: float
    operation_count: float


def measure_machine(threads: int) -> Machine:
    """Takes a few seconds, and leaves torch's threads at `threads`."""
    torch.set_num_threads(threads)
    numbers = torch.ones(READ_BYTES // 4)
    readers: list[Callable[[], object]] = [numbers.sum]
    readers += _native_readers(numbers, threads)
    a, b = torch.rand(PRODUCT_SIZE, PRODUCT_SIZE), torch.rand(PRODUCT_SIZE, PRODUCT_SIZE)
    read_s = min(_least(reader) for reader in readers)
    return Machine(READ_BYTES / read_s, 2 * PRODUCT_SIZE**3 / _least(lambda: a @ b))


def _native_readers(numbers: torch.Tensor, threads: int) -> list[Callable[[], object]]:
    """A product with one row reads every weight once."""
    from services.tts_lm.native import KERNELS
    from services.tts_lm.native.library import Library, NativeMatrix

    path = KERNELS.built()
    if path is None:
        return []
    library, matrix, x = Library(path, threads), NativeMatrix(numbers.view(-1, 1024)), torch.ones(1, 1024)
    return [lambda: library.product(x, matrix)]


GPU_COPY_BYTES = 2 << 30
GPU_PRODUCT_SIZE = {torch.bfloat16: 8192, torch.float32: 4096}
CHAIN = 200


def measure_gpu(device: str, dtype: torch.dtype = torch.bfloat16) -> Machine:
    """Copy bandwidth and the rate of products of `dtype` (float32 ones are whole, not TF32), medians of ten."""
    both = torch.randn(2, GPU_COPY_BYTES // 4, device=device)
    copy_s = _median_on_gpu(lambda: both[1].copy_(both[0]))
    size = GPU_PRODUCT_SIZE[dtype]
    a, b = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    return Machine(2 * GPU_COPY_BYTES / copy_s, 2 * size**3 / _median_on_gpu(lambda: a @ b))


def graph_kernel_s(device: str) -> float:
    """What one of many tiny kernels costs that wait for each other in a replayed graph: launch and dependency alone."""
    x = torch.zeros(32, device=device)
    graph = torch.cuda.CUDAGraph()
    x.add_(1.0)
    torch.cuda.synchronize()
    with torch.cuda.graph(graph):
        for _ in range(CHAIN):
            x.add_(1.0)
    return _median_on_gpu(graph.replay) / CHAIN


def _median_on_gpu(run: Callable[[], object]) -> float:
    """Seconds by the device's own clock; three runs go before."""
    times = []
    for _ in range(13):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        run()
        end.record()
        end.synchronize()
        times.append(begin.elapsed_time(end) / 1000)
    return sorted(times[3:])[5]


def _least(run: Callable[[], object]) -> float:
    times = []
    for _ in range(RUNS):
        began = time.perf_counter()
        run()
        times.append(time.perf_counter() - began)
    return min(times)


def talker_frame(weights: object, config: object, context: int) -> Frame:
    """One pass of the talker's layers and head, Q − 1 of the predictor's with a head each, and keys and values of
    `context` positions. `weights` and `config` are those of `services.tts_lm.model`."""
    from services.tts_lm.model.config import ModelConfig
    from services.tts_lm.model.matrix import Int8Matrix, Matrix
    from services.tts_lm.model.weights import ModelWeights, StackWeights

    assert isinstance(weights, ModelWeights)
    assert isinstance(config, ModelConfig)

    def size(matrix: Matrix) -> tuple[int, int]:
        values = matrix.values if isinstance(matrix, Int8Matrix) else matrix
        scales = matrix.scales.numel() * 4 if isinstance(matrix, Int8Matrix) else 0
        return values.numel() * values.element_size() + scales, values.numel()

    def stack(one: StackWeights) -> tuple[int, int]:
        sizes = [size(m) for layer in one.layers for m in (layer.qkv, layer.output, layer.gate_up, layer.down)]
        return sum(s[0] for s in sizes), sum(s[1] for s in sizes)

    passes = config.codebook_count - 1
    parts = [(1, stack(weights.talker)), (1, size(weights.codec_head)), (passes, stack(weights.predictor))]
    parts += [(1, size(head)) for head in weights.predictor_heads]
    block = config.talker
    keys = context * block.layer_count * 2 * block.kv_head_count * block.head_size
    key_bytes = keys * weights.frame_table.element_size()
    attention = 2 * keys * block.head_count // block.kv_head_count
    byte_count = sum(times * part[0] for times, part in parts) + key_bytes
    # The predictor's first pass has two rows.
    operations = sum(2 * times * part[1] for times, part in parts) + 2 * stack(weights.predictor)[1] + attention
    return Frame(byte_count, operations)


def talker_step(config: object, rows: int, context: int, item_bytes: int) -> Frame:
    """What one step of `rows` sequences reads and computes, each with `context` positions: weights once for all of
    them (the predictor's for each pass), keys and values for each. `config` is a `ModelConfig` of tts_lm."""
    from services.tts_lm.model.config import ModelConfig

    assert isinstance(config, ModelConfig)

    def stack(block: Any) -> int:
        heads = (2 * block.head_count + 2 * block.kv_head_count) * block.head_size
        return block.layer_count * block.hidden_size * (heads + 3 * block.intermediate_size)

    passes = config.codebook_count - 1
    talker = stack(config.talker) + config.codec_vocab_size * config.talker.hidden_size
    predictor = passes * (stack(config.predictor) + config.codebook_size * config.predictor.hidden_size)
    block = config.talker
    keys = context * block.layer_count * 2 * block.kv_head_count * block.head_size
    attention = 2 * keys * block.head_count // block.kv_head_count
    first_pass = stack(config.predictor)  # has two rows
    return Frame(
        item_bytes * (talker + predictor + rows * keys), rows * (2 * (talker + predictor + first_pass) + attention)
    )


@contextmanager
def counted_products() -> Iterator[list[tuple[float, float]]]:
    """(bytes of weights, operations) of every product that the codec's decoder makes meanwhile."""
    from services.codec.model.conv import Product

    seen: list[tuple[float, float]] = []
    convolve = Product._convolve

    def counting(self: Product, x: torch.Tensor) -> torch.Tensor:
        out = convolve(self, x)
        weight = self._weight
        seen.append((weight.numel() * weight.element_size(), 2.0 * weight.numel() * out.shape[0] * out.shape[1]))
        return out

    Product._convolve = counting  # type: ignore[method-assign]
    try:
        yield seen
    finally:
        Product._convolve = convolve  # type: ignore[method-assign]
