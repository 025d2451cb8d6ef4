"""A stack of layers on the compiled kernels: the native twin of `layers.run_stack`, with its own view of the KV pool.

Activations are float32 whatever the weights are. A row gives the same bits in any company, so that neither profile of
the runner needs another path.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence

import torch
from torch import Tensor

from services.tts_lm.model.config import BlockConfig
from services.tts_lm.model.kv_cache import Span
from services.tts_lm.model.layers import rotary_angles
from services.tts_lm.model.weights import LayerWeights, StackWeights
from services.tts_lm.native.library import KINDS, BatchStruct, LayerStruct, Library, NativeMatrix, StackStruct


class NativeStack:
    """Layers and last norm, by address."""

    def __init__(self, library: Library, weights: StackWeights, block: BlockConfig, position_count: int) -> None:
        self._library, self._block = library, block
        self._owners: list[object] = []
        self._layers = (LayerStruct * len(weights.layers))(*map(self._layer, weights.layers))
        angle = rotary_angles(block, position_count)
        self.struct = StackStruct(
            self._layers,
            self._floats(weights.norm),
            self._floats(angle.cos()),
            self._floats(angle.sin()),
            block.layer_count,
            block.hidden_size,
            block.intermediate_size,
            block.head_count,
            block.kv_head_count,
            block.head_size,
            block.norm_eps,
        )

    def __call__(self, rows: Tensor, positions: Tensor, batch: NativeBatch) -> Tensor:
        """rows [R, H] float32 at rotary `positions` [R] int64 → [R, H]; rows are left alone."""
        assert rows.dtype == torch.float32
        batch.struct.positions = positions.data_ptr()
        return self._library.stack(self.struct, batch.struct, rows.clone(memory_format=torch.contiguous_format))

    def _layer(self, weights: LayerWeights) -> LayerStruct:
        matrices = [NativeMatrix(m) for m in (weights.qkv, weights.output, weights.gate_up, weights.down)]
        self._owners += matrices
        norms = [self._floats(n) for n in (weights.attention_norm, weights.qk_norm, weights.mlp_norm)]
        return LayerStruct(*norms, *(matrix.struct for matrix in matrices))

    def _floats(self, tensor: Tensor) -> int:
        wide = tensor.float().contiguous()
        self._owners.append(wide)
        return wide.data_ptr()


class NativeBatch:
    """Where each row's keys and values go and what it sees, in a memory [layers, 2, P, g, D]."""

    def __init__(self, memory: Tensor, spans: Sequence[Span], counts: Sequence[int]) -> None:
        """Rows are the last `counts[i]` positions of spans[i], all sequences one after the other."""
        firsts = [span.length - count for span, count in zip(spans, counts, strict=True)]
        lengths = [f + i + 1 for f, n in zip(firsts, counts, strict=True) for i in range(n)]
        each = [span for span, n in zip(spans, counts, strict=True) for _ in range(n)]
        targets = [
            span.start + length - 1 if span.scattered is None else int(span.scattered[length - 1])
            for span, length in zip(each, lengths, strict=True)
        ]
        self._numbers = torch.tensor([targets, lengths, [span.start for span in each]])
        addresses = [None if span.scattered is None else span.scattered.data_ptr() for span in each]
        self._tables = (ctypes.c_void_p * len(each))(*addresses)
        self._spans, self._memory = spans, memory  # kept alive
        first, step = self._numbers.data_ptr(), 8 * len(each)
        self.struct = BatchStruct(
            len(each), None, first, first + step, first + 2 * step, ctypes.addressof(self._tables),
            memory.data_ptr(), memory.shape[2], KINDS[memory.dtype],
        )  # fmt: skip
