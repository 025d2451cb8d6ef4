"""A whole frame as one function of static tensors: the step that is captured, and the pass over a prompt's rows.

    row = text + what the slot last said          one talker step over its pages
        → code 0 → code 1 → … → code Q−1          Q − 1 passes of the predictor over a cache that lives for one frame
        → the slot's codes and ids seen           what the next frame starts from stays on the device

Positions, pages, text ids and masks are the host's to know and are given with every step, as one matrix of integers;
what only the device knows (codes, ids seen) never leaves it between frames. Owns no decision and no memory but the
predictor's cache. Source: model document 3 and 5.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from common.graphs import Buffers
from services.tts_lm.model.code_predictor import projected_codes
from services.tts_lm.model.config import ModelConfig
from services.tts_lm.model.step_kernels import CodeTable, Draws, Places, SlotTensors, StepKernels, run_layers
from services.tts_lm.model.talker import Talker
from services.tts_lm.model.weights import ModelWeights

NO_CODE = -1


@dataclass
class StepInputs(Buffers):
    """`columns` [6, B]: slot, text id, position, target in the pool, frame, whether end of speech is masked; `table`
    [B, P]: pages. int64."""

    columns: Tensor
    table: Tensor


@dataclass
class PromptInputs(Buffers):
    """Rows of one prompt. `columns` [4, R]: text id, position, target, whether the speaker's vector is read; `codes`
    [R, Q], −1 for none; `table` [1, P]; int64. `vector` [H] float32."""

    columns: Tensor
    codes: Tensor
    table: Tensor
    vector: Tensor


class FrameStep:
    """The model over one pool of pages and one set of slots. `text_table` [text vocabulary, H]: projected text."""

    def __init__(
        self,
        weights: ModelWeights,
        config: ModelConfig,
        talker: Talker,
        kernels: StepKernels,
        *,
        text_table: Tensor,
        memory: Tensor,
        page_size: int,
        slots: SlotTensors,
        max_rows: int,
        max_positions: int,
    ) -> None:
        self._w, self._config, self._talker, self.kernels = weights, config, talker, kernels
        self._text, self._memory, self._page_size, self._slots = text_table, memory, page_size, slots
        self._count = config.codebook_count
        device, block = memory.device, config.predictor
        self._rotary = kernels.rotary(config.talker, max_positions, device)
        self._predictor_rotary = kernels.rotary(block, self._count, device)
        # The predictor's cache is a pool whose page is a frame and whose page r is row r.
        shape = (block.layer_count, 2, max_rows * self._count, block.kv_head_count, block.head_size)
        self._frame_memory = torch.zeros(shape, dtype=memory.dtype, device=device)
        offsets = (0, *(config.codec_vocab_size + i * config.codebook_size for i in range(self._count - 1)))
        self._read = CodeTable(weights.frame_table, talker.table_offsets, offsets)
        projected = projected_codes(weights, config, weights.frame_table.dtype)
        self._predicted = CodeTable(
            weights.frame_table if projected is None else projected, talker.table_offsets, offsets
        )
        self._places: dict[int, list[Places]] = {}

    def step(self, batch: StepInputs) -> Tensor:
        """One frame of every row: codes [B, Q] int64; the slots go on by it."""
        slot, text, position, target, frame, masked = batch.columns.unbind(0)
        x = self._rows(text, self._slots.codes[slot])
        x = self._run(x, Places(position, target, batch.table, self._page_size, alone=True))
        hidden = self.kernels.norm(x, self._w.talker.norm, self._config.talker.norm_eps)
        codes = torch.empty(slot.shape[0], self._count, dtype=torch.int64, device=slot.device)
        draws = Draws(self._slots, slot, masked, self.kernels.uniforms(self._slots, slot, frame), codes)
        self._frame(hidden, draws)
        return codes

    def prompt(self, batch: PromptInputs) -> None:
        """Keys and values of a prompt's rows; what the talker says to them is nobody's."""
        text, position, target, speaking = batch.columns.unbind(0)
        x = self._rows(text, batch.codes)
        x = torch.where(speaking[:, None] > 0, (x + batch.vector.to(self._w.frame_table.dtype)).to(x.dtype), x)
        self._run(x, Places(position, target, batch.table, self._page_size, alone=False))

    def _rows(self, text: Tensor, codes: Tensor) -> Tensor:
        """Text ids [R] and codes [R, Q] → rows [R, H]; codes are added up in float32."""
        found = self._read.rows[(codes + self._read.offsets).clamp_min(0)]
        spoken = found.masked_fill((codes < 0)[:, :, None], 0).sum(1, dtype=torch.float32)
        dtype = self.kernels.row_dtype
        return self._text[text].to(dtype) + spoken.to(dtype)

    def _run(self, x: Tensor, places: Places) -> Tensor:
        weights, block = self._w.talker, self._config.talker
        return run_layers(x, weights, block, self.kernels, self._rotary, self._memory, places)

    def _frame(self, hidden: Tensor, draws: Draws) -> None:
        kernels, config, last = self.kernels, self._config, self._count - 1
        logits = kernels.logits(hidden, None, self._w.codec_head)
        row: Tensor | None = kernels.draw_first(
            logits, draws, self._talker.suppressed, config.codec.eos, self._predicted, config.codebook_size
        )
        projection = self._w.predictor_input
        first = hidden.to(kernels.row_dtype) if projection is None else kernels.project(hidden, *projection)
        norm = (self._w.predictor.norm, config.predictor.norm_eps)
        for codebook, places in enumerate(self._passes(hidden.shape[0]), 1):
            assert row is not None
            x = torch.cat([first, row]) if codebook == 1 else row
            x = self._predict(x, places)[-hidden.shape[0] :]
            logits = kernels.logits(x, norm, self._w.predictor_heads[codebook - 1])
            row = kernels.draw_next(codebook, logits, draws, self._predicted if codebook < last else None)

    def _predict(self, x: Tensor, places: Places) -> Tensor:
        weights, block = self._w.predictor, self._config.predictor
        return run_layers(x, weights, block, self.kernels, self._predictor_rotary, self._frame_memory, places)

    def _passes(self, row_count: int) -> list[Places]:
        """Where the rows of each pass stand; the first one reads positions 0 and 1 of every row at once."""
        found = self._places.get(row_count)
        if found is None:
            device = self._frame_memory.device
            rows, size = torch.arange(row_count, device=device), self._count
            at = [(torch.full_like(rows, place), rows * size + place, rows[:, None]) for place in range(size)]
            both = [torch.cat(pair) for pair in zip(at[0], at[1], strict=True)]
            found = [Places(both[0], both[1], both[2], size, alone=False)]
            found += [Places(*each, size, alone=True) for each in at[2:]]
            self._places[row_count] = found
        return found
