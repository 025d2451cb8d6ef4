"""The code predictor: a hidden state and code 0 → codes 1 to Q−1 of the same frame.

Fifteen passes over sixteen positions of a cache that lives for one frame. Source: model document 3.3 and section 5,
step 4.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from services.tts_lm.model.config import ModelConfig
from services.tts_lm.model.kv_cache import Span
from services.tts_lm.model.layers import Rotary, run_stack
from services.tts_lm.model.matrix import product
from services.tts_lm.model.sampling import Filter, RowSampling, draw
from services.tts_lm.model.talker import Talker
from services.tts_lm.model.weights import ModelWeights
from services.tts_lm.native.library import (
    BatchStruct,
    Library,
    MatrixStruct,
    NativeMatrix,
    PredictorStruct,
    SamplingStruct,
)
from services.tts_lm.native.stack import NativeBatch, NativeStack

Pick = Callable[[int, Tensor], Tensor]
"""(codebook, logits [S, V] float32) → codes [S]."""


class Passes(Protocol):
    """The layers over a preallocated cache that every frame overwrites; rows are those of positions in order."""

    def first(self, hidden: Tensor, code_rows: Tensor) -> Tensor:
        """Positions 0 and 1 at once: two times [S, H] → the outputs of position 1 [S, H]."""
        ...

    def at(self, position: int, rows: Tensor) -> Tensor:
        """Position `position` ≥ 2: [S, H] → [S, H]."""
        ...

    def logits(self, codebook: int, out: Tensor) -> Tensor:
        """[S, H] → [S, V] float32."""
        ...


class CodePredictor:
    """Fifteen passes, and what is fed from one to the next.

    Where the predictor is narrower than the talker, every code's embedding goes through one projection: that is done
    for all codes at once, at the start, so that a pass begins with a lookup.
    """

    def __init__(
        self,
        weights: ModelWeights,
        config: ModelConfig,
        talker: Talker,
        slot_count: int,
        *,
        row_wise: bool,
        library: Library | None = None,
    ) -> None:
        self._w, self._config, self._talker, self._row_wise = weights, config, talker, row_wise
        self._projected = projected_codes(weights, config, talker.dtype)
        self._passes: Passes
        if library is None:
            self._passes = _TorchPasses(weights, config, slot_count, row_wise)
        else:
            table = weights.frame_table if self._projected is None else self._projected
            self._passes = _NativePasses(library, weights, config, slot_count, table, talker.table_offsets)

    def frame(self, hidden: Tensor, code0: Tensor, uniforms: Tensor, rows: RowSampling, batch: Filter) -> Tensor:
        """`predict`, each code drawn by its row's settings and by `uniforms` [S, Q]; in one call where that can be."""
        if isinstance(self._passes, _NativePasses) and not batch.top_p:
            return self._passes.frame(self._input(hidden), code0, uniforms, rows)
        return self.predict(hidden, code0, lambda codebook, logits: draw(logits, uniforms[:, codebook], rows, batch))

    def predict(self, hidden: Tensor, code0: Tensor, pick: Pick) -> Tensor:
        """All codes of one frame: hidden [S, H], code0 [S] → [S, Q]; `pick` chooses codes 1 … Q−1 from their logits."""
        codes, last = [code0], self._config.codebook_count - 1
        out = self._passes.first(self._input(hidden), self._code_rows(0, code0))
        for codebook in range(1, last + 1):
            codes.append(pick(codebook, self._passes.logits(codebook, out)))
            if codebook < last:
                out = self._passes.at(codebook + 1, self._code_rows(codebook, codes[-1]))
        return torch.stack(codes, 1)

    def _code_rows(self, codebook: int, codes: Tensor) -> Tensor:
        """What a code of this codebook is to the predictor: [S] → [S, predictor hidden]."""
        if self._projected is not None:
            return self._projected[self._talker.table_index(codebook, codes)]
        return self._talker.codec_rows(codes) if codebook == 0 else self._talker.acoustic_rows(codebook, codes)

    def _input(self, rows: Tensor) -> Tensor:
        if self._w.predictor_input is None:
            return rows
        weight, bias = self._w.predictor_input
        return product(rows.to(weight.dtype), weight, bias, row_wise=self._row_wise).to(rows.dtype)


def projected_codes(weights: ModelWeights, config: ModelConfig, dtype: torch.dtype) -> Tensor | None:
    """What every code is to a predictor of another width than the talker: [C + (Q−1)·V, predictor hidden] in `dtype`,
    added up in float64 and rounded once."""
    if weights.predictor_input is None:
        return None
    weight, bias = (part.double() for part in weights.predictor_input)
    parts = torch.split(weights.frame_table, config.codebook_size)
    return torch.cat([product(part.double(), weight, bias).to(dtype) for part in parts])


class _TorchPasses:
    def __init__(self, weights: ModelWeights, config: ModelConfig, slot_count: int, row_wise: bool) -> None:
        block, table = config.predictor, weights.frame_table
        self._w, self._block, self._row_wise = weights, block, row_wise
        self._rotary = Rotary(block, config.codebook_count, table.dtype, table.device)
        shape = (block.layer_count, 2, slot_count, block.kv_head_count, config.codebook_count, block.head_size)
        self._cache = torch.zeros(shape, dtype=table.dtype, device=table.device)
        self._group = block.head_count // block.kv_head_count
        places = torch.arange(config.codebook_count, device=table.device)
        self._places = [self._rotary.at(places[i : i + 1]) for i in range(config.codebook_count)]

    def first(self, hidden: Tensor, code_rows: Tensor) -> Tensor:
        count = hidden.shape[0]
        first, second = self._places[0], self._places[1]
        places = tuple(
            torch.cat([a.expand(count, 1, -1), b.expand(count, 1, -1)]) for a, b in zip(first, second, strict=True)
        )
        return self._run(torch.cat([hidden, code_rows]), (places[0], places[1]), self._attend_first)[count:]

    def at(self, position: int, rows: Tensor) -> Tensor:
        return self._run(rows, self._places[position], self._attend_at(position))

    def logits(self, codebook: int, out: Tensor) -> Tensor:
        return product(out, self._w.predictor_heads[codebook - 1], row_wise=self._row_wise).float()

    def _run(self, rows: Tensor, places: tuple[Tensor, Tensor], attend: Callable[..., Tensor]) -> Tensor:
        return run_stack(rows, self._w.predictor, self._block, self._rotary, places, attend, row_wise=self._row_wise)

    def _attend_first(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Rows [hidden…, code 0…]. Position 0 sees only itself, so it returns its own value."""
        count = q.shape[0] // 2
        cache = self._cache[layer, :, :count]
        for position in (0, 1):
            rows = slice(position * count, (position + 1) * count)
            cache[0, :, :, position], cache[1, :, :, position] = k[rows], v[rows]
        alone = v[:count].repeat_interleave(self._group, dim=1).reshape(count, -1)
        return torch.cat([alone, self._attend(layer, q[count:], 2)])

    def _attend_at(self, position: int) -> Callable[[int, Tensor, Tensor, Tensor], Tensor]:
        def attend(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            cache = self._cache[layer, :, : q.shape[0]]
            cache[0, :, :, position], cache[1, :, :, position] = k, v
            return self._attend(layer, q, position + 1)

        return attend

    def _attend(self, layer: int, q: Tensor, length: int) -> Tensor:
        count = q.shape[0]
        keys, values = self._cache[layer, :, :count, :, :length]
        grouped = q.reshape(count, -1, self._group, q.shape[-1])
        return F.scaled_dot_product_attention(grouped, keys, values).reshape(count, -1)


class _NativePasses:
    """The same on the compiled kernels: slot s owns the positions from s·Q on of one small pool, always float32."""

    def __init__(
        self,
        library: Library,
        weights: ModelWeights,
        config: ModelConfig,
        slot_count: int,
        table: Tensor,
        offsets: Tensor,
    ) -> None:
        """`table` [C + (Q−1)·V, predictor hidden]: what each code is to the layers, codebooks from `offsets` [Q] on."""
        block, self._count = config.predictor, config.codebook_count
        self._library = library
        self._stack = NativeStack(library, weights.predictor, block, self._count)
        self._heads = [NativeMatrix(head) for head in weights.predictor_heads]
        shape = (block.layer_count, 2, slot_count * self._count, block.kv_head_count, block.head_size)
        self._memory = torch.zeros(shape)
        self._batches: dict[tuple[int, int], tuple[Tensor, NativeBatch]] = {}
        self._frames: dict[int, ctypes.Array[BatchStruct]] = {}
        self._table, self._offsets = NativeMatrix(table), offsets
        heads = (MatrixStruct * len(self._heads))(*(head.struct for head in self._heads))
        self._struct = PredictorStruct(
            ctypes.pointer(self._stack.struct), heads, self._table.struct, offsets.data_ptr(), self._count
        )

    def frame(self, hidden: Tensor, code0: Tensor, uniforms: Tensor, rows: RowSampling) -> Tensor:
        """All codes of one frame [S, Q], with nothing of Python between the passes. No top-p."""
        count = hidden.shape[0]
        if count not in self._frames:
            batches = [self._batch(length, count) for length in range(2, self._count + 1)]
            for positions, batch in batches:
                batch.struct.positions = positions.data_ptr()
            self._frames[count] = (BatchStruct * len(batches))(*(batch.struct for _, batch in batches))
        codes = code0.new_empty(count, self._count)
        codes[:, 0] = code0
        hidden, uniforms = hidden.contiguous(), uniforms.contiguous()
        sampling = SamplingStruct(
            rows.greedy.data_ptr(), rows.temperature.data_ptr(), rows.top_k.data_ptr(), uniforms.data_ptr(), self._count
        )
        self._library.predict(self._struct, self._frames[count], sampling, hidden, codes)
        return codes

    def first(self, hidden: Tensor, code_rows: Tensor) -> Tensor:
        rows = torch.stack([hidden, code_rows], 1).flatten(0, 1)
        return self._stack(rows, *self._batch(2, hidden.shape[0]))[1::2]

    def at(self, position: int, rows: Tensor) -> Tensor:
        return self._stack(rows, *self._batch(position + 1, rows.shape[0]))

    def logits(self, codebook: int, out: Tensor) -> Tensor:
        return self._library.product(out, self._heads[codebook - 1])

    def _batch(self, length: int, count: int) -> tuple[Tensor, NativeBatch]:
        """`count` slots that have `length` positions with the new ones; the two first come together."""
        found = self._batches.get((length, count))
        if found is None:
            new = 2 if length == 2 else 1
            positions = torch.arange(length - new, length).repeat(count)
            spans = [Span(slot * self._count, length) for slot in range(count)]
            found = self._batches[length, count] = positions, NativeBatch(self._memory, spans, [new] * count)
        return found
