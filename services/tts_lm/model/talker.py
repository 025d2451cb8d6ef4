"""The talker: embeddings of text and past frames → hidden states, and code-0 logits.

Owns weights, no memory: keys and values are the caller's pool. Source: model document 3.1, 3.2 and section 5.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from services.tts_lm.model.config import SUPPRESSED_TAIL, ModelConfig
from services.tts_lm.model.kv_cache import KvPool, Span
from services.tts_lm.model.layers import Rotary, run_stack
from services.tts_lm.model.matrix import product
from services.tts_lm.model.sampling import NEVER
from services.tts_lm.model.weights import ModelWeights
from services.tts_lm.native.library import Library, NativeMatrix
from services.tts_lm.native.stack import NativeBatch, NativeStack


class Talker:
    """Weights and tables of the talker; every method is a pure function of its arguments and the pool."""

    def __init__(
        self,
        weights: ModelWeights,
        config: ModelConfig,
        position_count: int,
        *,
        row_wise: bool,
        library: Library | None = None,
    ) -> None:
        """`dtype` is that of rows and hidden states, `kv_dtype` that of keys and values; on the native kernels
        (`library`) rows are float32 whatever the weights are."""
        self._w, self._config, self._row_wise = weights, config, row_wise
        table = weights.frame_table
        self.kv_dtype, self.device = table.dtype, table.device
        self.dtype = table.dtype if library is None else torch.float32
        self._library = library
        if library is None:
            self._rotary = Rotary(config.talker, position_count, self.dtype, self.device)
        else:
            self._native = NativeStack(library, weights.talker, config.talker, position_count)
            self._native_head = NativeMatrix(weights.codec_head)
        acoustic = torch.arange(config.codebook_count - 1, device=self.device) * config.codebook_size
        self.table_offsets = torch.cat([acoustic.new_zeros(1), config.codec_vocab_size + acoustic])
        self.suppressed = torch.zeros(config.codec_vocab_size, dtype=torch.bool, device=self.device)
        self.suppressed[config.codec_vocab_size - SUPPRESSED_TAIL :] = True
        self.suppressed[config.codec.eos] = False

    def text_rows(self, ids: Tensor) -> Tensor:
        """Projected text embeddings: ids [R] → [R, H]."""
        rows = self._w.text_embedding[ids].to(self._w.text_fc1[0].dtype)
        hidden = F.silu(product(rows, *self._w.text_fc1, row_wise=self._row_wise))
        return product(hidden, *self._w.text_fc2, row_wise=self._row_wise).to(self.dtype)

    def codec_rows(self, ids: Tensor) -> Tensor:
        """Codec embeddings of code 0 or control ids: [R] → [R, H]."""
        return self._w.frame_table[ids].to(self.dtype)

    def frame_rows(self, codes: Tensor) -> Tensor:
        """Sum of the embeddings of whole frames: codes [R, Q] → [R, H], added in float32 and rounded at most once."""
        rows = self._w.frame_table[codes + self.table_offsets]
        return rows.sum(1, dtype=torch.float32).to(self.dtype)

    def acoustic_rows(self, codebook: int, codes: Tensor) -> Tensor:
        """Embeddings of codebook `codebook` ≥ 1: [R] → [R, H]."""
        return self._w.frame_table[self.table_index(codebook, codes)].to(self.dtype)

    def table_index(self, codebook: int, codes: Tensor) -> Tensor:
        """Rows of the frame table, and of every table like it, that hold these codes."""
        return codes + self.table_offsets[codebook]

    def prefill(self, rows: Tensor, spans: Sequence[Span], counts: Sequence[int], pool: KvPool) -> Tensor:
        """Run packed prompts [Σ counts, H], each the last `counts[i]` positions of its span; last hidden of each [n,
        H].
        """
        firsts = [span.length - count for span, count in zip(spans, counts, strict=True)]
        positions = [torch.arange(f, f + n, device=self.device) for f, n in zip(firsts, counts, strict=True)]
        hidden = self._run(rows, torch.cat(positions), spans, counts, pool)
        last = torch.tensor(counts, device=self.device).cumsum(0) - 1
        return hidden[last]

    def step(self, rows: Tensor, positions: Tensor, spans: Sequence[Span], pool: KvPool) -> Tensor:
        """One row per sequence: [S, H] at `positions` [S] → hidden [S, H]."""
        return self._run(rows, positions, spans, None, pool)

    def _run(
        self, rows: Tensor, positions: Tensor, spans: Sequence[Span], counts: Sequence[int] | None, pool: KvPool
    ) -> Tensor:
        """`counts` None: one row per sequence."""
        if self._library is not None:
            return self._native(rows, positions, NativeBatch(pool.memory, spans, counts or [1] * len(spans)))
        return run_stack(
            rows,
            self._w.talker,
            self._config.talker,
            self._rotary,
            self._rotary.at(positions),
            pool.step(spans) if counts is None else pool.prefill(spans, counts),
            row_wise=self._row_wise,
        )

    def logits(self, hidden: Tensor) -> Tensor:
        """Code-0 logits, float32: hidden [S, H] → [S, C]."""
        if self._library is not None:
            return self._library.product(hidden, self._native_head)
        return product(hidden, self._w.codec_head, row_wise=self._row_wise).float()

    def forbid(self, logits: Tensor, eos_masked: Tensor) -> Tensor:
        """Control ids never, end of speech not in rows where `eos_masked` [S]."""
        logits = logits.masked_fill(self.suppressed, NEVER)
        eos = self._config.codec.eos
        logits[:, eos] = torch.where(eos_masked, NEVER, logits[:, eos])
        return logits
