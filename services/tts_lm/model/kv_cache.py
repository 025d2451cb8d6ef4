"""The talker's keys and values: one preallocated pool for all slots, read through pages, never copied when contiguous.

Who owns which page is decided elsewhere (`services.tts_lm.pages`); here a sequence is a `Span` of pool positions.
Nothing is allocated per step that grows, and attention reads exactly the positions a sequence has, never the capacity.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from services.tts_lm.model.config import BlockConfig


@dataclass(frozen=True)
class Span:
    """`length` pool positions of one sequence, in order: from `start` on, or where `scattered` [length] says."""

    start: int
    length: int
    scattered: Tensor | None = None

    def positions(self, first: int, device: torch.device) -> Tensor:
        """Pool positions of the sequence's positions from `first` on."""
        if self.scattered is not None:
            return self.scattered[first:]
        return torch.arange(self.start + first, self.start + self.length, device=device)


class KvPool:
    """Keys and values of every layer: [layers, 2, P, g, D]."""

    def __init__(self, block: BlockConfig, position_count: int, dtype: torch.dtype, device: torch.device) -> None:
        shape = (block.layer_count, 2, position_count, block.kv_head_count, block.head_size)
        self._memory = torch.zeros(shape, dtype=dtype, device=device)
        self._group = block.head_count // block.kv_head_count
        self.device = device

    @property
    def memory(self) -> Tensor:
        """All of it, for kernels that read it in place."""
        return self._memory

    @staticmethod
    def bytes_per_position(block: BlockConfig, dtype: torch.dtype) -> int:
        return block.layer_count * 2 * block.kv_head_count * block.head_size * dtype.itemsize

    def copy(self, source: int, target: int, count: int) -> None:
        """Keys and values of `count` positions from `source` on, to `target` and on."""
        self._memory[:, :, target : target + count] = self._memory[:, :, source : source + count]

    def step(self, spans: Sequence[Span]) -> _StepAttention:
        """Attention for one new row per sequence: row i is the last position of spans[i]."""
        return _StepAttention(self._memory, self._group, spans)

    def prefill(self, spans: Sequence[Span], counts: Sequence[int]) -> _PrefillAttention:
        """Attention for the last `counts[i]` positions of spans[i], all sequences' rows packed one after the other."""
        return _PrefillAttention(self._memory, self._group, spans, counts)


class _StepAttention:
    def __init__(self, memory: Tensor, group: int, spans: Sequence[Span]) -> None:
        self._memory, self._group, self._spans = memory, group, spans
        self._targets = torch.cat([span.positions(span.length - 1, memory.device) for span in spans])

    def __call__(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        keys, values = self._memory[layer]
        keys.index_copy_(0, self._targets, k)
        values.index_copy_(0, self._targets, v)
        rows = [
            # The heads that share a kv head are queries of one another's length: no mask, nothing repeated.
            F.scaled_dot_product_attention(
                q[i].view(1, -1, self._group, q.shape[-1]), _read(keys, span), _read(values, span)
            ).reshape(1, -1)
            for i, span in enumerate(self._spans)
        ]
        return rows[0] if len(rows) == 1 else torch.cat(rows)


class _PrefillAttention:
    def __init__(self, memory: Tensor, group: int, spans: Sequence[Span], counts: Sequence[int]) -> None:
        self._memory, self._group, self._spans, self._counts = memory, group, spans, list(counts)
        parts = [s.positions(s.length - n, memory.device) for s, n in zip(spans, counts, strict=True)]
        self._targets = torch.cat(parts)
        self._masks = [_causal(span.length, n, memory.device) for span, n in zip(spans, counts, strict=True)]

    def __call__(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        keys, values = self._memory[layer]
        keys.index_copy_(0, self._targets, k)
        values.index_copy_(0, self._targets, v)
        rows = []
        for part, span, mask in zip(torch.split(q, self._counts), self._spans, self._masks, strict=True):
            key, value = (_read(x, span).repeat_interleave(self._group, dim=1) for x in (keys, values))
            out = F.scaled_dot_product_attention(part.transpose(0, 1)[None], key, value, attn_mask=mask)
            rows.append(out[0].transpose(0, 1).reshape(part.shape[0], -1))
        return rows[0] if len(rows) == 1 else torch.cat(rows)


def _read(pool: Tensor, span: Span) -> Tensor:
    """A sequence's keys or values as [1, g, length, D]; a view unless its pages are scattered."""
    own = slice(span.start, span.start + span.length)
    part = pool[own] if span.scattered is None else pool.index_select(0, span.scattered)
    return part.transpose(0, 1)[None]


def _causal(length: int, count: int, device: torch.device) -> Tensor | None:
    """Row i of the last `count` positions sees everything up to itself; one row sees all."""
    if count == 1:
        return None
    return torch.ones(count, length, dtype=torch.bool, device=device).tril(length - count)
