"""The code predictor: a hidden state and code 0 → codes 1 to Q−1 of the same frame.

Fifteen passes over sixteen positions of a cache that lives for one frame. Source: model document 3.3 and section 5,
step 4.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from services.tts_lm.model.config import ModelConfig
from services.tts_lm.model.layers import Rotary, product, run_stack
from services.tts_lm.model.talker import Talker
from services.tts_lm.model.weights import ModelWeights

Pick = Callable[[int, Tensor], Tensor]
"""(codebook, logits [S, V] float32) → codes [S]."""


class CodePredictor:
    """Weights, and one preallocated cache that every frame overwrites."""

    def __init__(self, weights: ModelWeights, config: ModelConfig, talker: Talker, slot_count: int, *, row_wise: bool):
        block = config.predictor
        self._w, self._config, self._talker, self._row_wise = weights, config, talker, row_wise
        self._rotary = Rotary(block, config.codebook_count, talker.dtype, talker.device)
        shape = (block.layer_count, 2, slot_count, block.kv_head_count, config.codebook_count, block.head_size)
        self._cache = torch.zeros(shape, dtype=talker.dtype, device=talker.device)
        self._group = block.head_count // block.kv_head_count
        places = torch.arange(config.codebook_count, device=talker.device)
        self._places = [self._rotary.at(places[i : i + 1]) for i in range(config.codebook_count)]

    def predict(self, hidden: Tensor, code0: Tensor, pick: Pick) -> Tensor:
        """All codes of one frame: hidden [S, H], code0 [S] → [S, Q]; `pick` chooses codes 1 … Q−1 from their logits."""
        count = hidden.shape[0]
        codes = [code0]
        both = self._input(torch.cat([hidden, self._talker.codec_rows(code0)]))
        first, second = self._places[0], self._places[1]
        places = tuple(
            torch.cat([a.expand(count, 1, -1), b.expand(count, 1, -1)]) for a, b in zip(first, second, strict=True)
        )
        out = self._run(both, (places[0], places[1]), self._attend_first)[count:]
        for codebook in range(1, self._config.codebook_count):
            head = self._w.predictor_heads[codebook - 1]
            codes.append(pick(codebook, product(out, head, row_wise=self._row_wise).float()))
            if codebook + 1 < self._config.codebook_count:
                rows = self._input(self._talker.acoustic_rows(codebook, codes[-1]))
                out = self._run(rows, self._places[codebook + 1], self._attend_at(codebook + 1))
        return torch.stack(codes, 1)

    def _input(self, rows: Tensor) -> Tensor:
        if self._w.predictor_input is None:
            return rows
        return product(rows, *self._w.predictor_input, row_wise=self._row_wise)

    def _run(self, rows: Tensor, places: tuple[Tensor, Tensor], attend: Callable[..., Tensor]) -> Tensor:
        block = self._config.predictor
        return run_stack(rows, self._w.predictor, block, self._rotary, places, attend, row_wise=self._row_wise)

    def _attend_first(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Positions 0 and 1 at once, rows [hidden…, code 0…]. Position 0 sees only itself, so it returns its own
        value.
        """
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
