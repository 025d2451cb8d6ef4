"""The arithmetic of a captured step behind one seam, and that arithmetic on torch alone.

Every shape is known before the step: rows are padded to a bucket, and a row's keys lie in pages that a table names.
Nothing here waits for the device, branches on a tensor's value or has a shape that depends on one. On CUDA with Triton
the same operations are `services/tts_lm/fused`; here they are what `layers.py` and `sampling.py` compute, so that the
eager twin on a CPU is the model itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from services.tts_lm.model.config import BlockConfig
from services.tts_lm.model.layers import Rotary, rms_norm
from services.tts_lm.model.matrix import Matrix, product
from services.tts_lm.model.randomness import frame_uniforms
from services.tts_lm.model.sampling import NEVER, Filter, RowSampling, draw, penalise
from services.tts_lm.model.weights import LayerWeights, StackWeights

_WORD = 0xFFFFFFFF
_ANY = Filter(all_greedy=False, any_greedy=True, top_k=None, top_p=True)
"""A graph is captured for every way of sampling: each row's settings are tensors."""
SETTINGS = 9
"""Of a slot: greedy, temperature, top_k and top_p of the talker, the same of the predictor, the repetition penalty."""


@dataclass(frozen=True)
class Places:
    """Where rows stand: their positions [R] in their sequences, the pool positions [R] that take their keys, and the
    pages [R or 1, P] that hold what came before. `alone`: no row reads what another row of this pass writes."""

    positions: Tensor
    targets: Tensor
    table: Tensor
    page_size: int
    alone: bool


@dataclass(frozen=True)
class SlotTensors:
    """What each slot carries from frame to frame on the device; the last slot is where padding goes."""

    codes: Tensor  # [S, Q] int64: what the next row reads; −1 where it reads nothing
    seen: Tensor  # [S, C] bool: ids of code 0 so far
    settings: Tensor  # [S, 9] float32
    seeds: Tensor  # [S] int64

    @staticmethod
    def allocate(slot_count: int, codebook_count: int, vocabulary: int, device: torch.device) -> SlotTensors:
        """Greedy slots that have said nothing."""
        settings = torch.ones(slot_count, SETTINGS, device=device)
        settings[:, 2] = settings[:, 6] = 0
        return SlotTensors(
            torch.full((slot_count, codebook_count), -1, dtype=torch.int64, device=device),
            torch.zeros(slot_count, vocabulary, dtype=torch.bool, device=device),
            settings,
            torch.zeros(slot_count, dtype=torch.int64, device=device),
        )


@dataclass(frozen=True)
class CodeTable:
    """What codes are to the rows that read them: [C + (Q−1)·V, W], codebook q from `offsets[q]` on."""

    rows: Tensor
    offsets: Tensor  # [Q] int64, on the device
    first: tuple[int, ...]  # the same, for kernels that are given one


@dataclass(frozen=True)
class Draws:
    """The sampling of one frame: by slot [B], with draws [B, Q], into codes [B, Q] and the slots' own."""

    slots: SlotTensors
    slot: Tensor
    masked: Tensor  # [B] int64: 1 where end of speech must not be drawn
    uniforms: Tensor
    codes: Tensor


class StepKernels(Protocol):
    """Products, attention and sampling of a step. Rows x [R, H] are in `row_dtype`, what goes between two products in
    the weights' dtype; weights are [O, I]."""

    row_dtype: torch.dtype
    batch_invariant: bool
    """Whether a row's bits are the same in every bucket, at every place and beside every mate."""

    def rotary(self, block: BlockConfig, position_count: int, device: torch.device) -> Any:
        """The table that `attend` wants."""
        ...

    def norm(self, x: Tensor, weight: Tensor, eps: float) -> Tensor: ...

    def normed_product(self, x: Tensor, norm: Tensor, eps: float, matrix: Matrix) -> Tensor: ...

    def gated(self, x: Tensor, norm: Tensor, eps: float, gate_up: Matrix) -> Tensor: ...

    def add_product(self, x: Tensor, y: Tensor, matrix: Matrix) -> Tensor:
        """x + y · matrixᵀ."""
        ...

    def project(self, x: Tensor, matrix: Tensor, bias: Tensor) -> Tensor:
        """Rows of one width → rows of another."""
        ...

    def logits(self, x: Tensor, norm: tuple[Tensor, float] | None, matrix: Tensor) -> Tensor:
        """float32, x normed before if `norm` says how."""
        ...

    def attend(
        self, qkv: Tensor, w: LayerWeights, block: BlockConfig, rotary: Any, memory: Tensor, places: Places
    ) -> Tensor:
        """qkv [R, h + 2g, D] → [R, h·D]; keys and values go to `memory` [2, P, g, D]."""
        ...

    def uniforms(self, slots: SlotTensors, slot: Tensor, frame: Tensor) -> Tensor:
        """[B, Q] float64."""
        ...

    def draw_first(
        self, logits: Tensor, draws: Draws, suppressed: Tensor, eos: int, table: CodeTable, code_count: int
    ) -> Tensor:
        """Code 0 from the talker's logits [B, C] → what it is to the predictor [B, W]."""
        ...

    def draw_next(self, codebook: int, logits: Tensor, draws: Draws, table: CodeTable | None) -> Tensor | None:
        """Code `codebook` from logits [B, V] → what it is to the next pass [B, W]; None without a table."""
        ...


def run_layers(
    x: Tensor,
    stack: StackWeights,
    block: BlockConfig,
    kernels: StepKernels,
    rotary: Any,
    memory: Tensor,
    places: Places,
) -> Tensor:
    """All layers over rows x [R, H], before the last norm. `memory` [layers, 2, P, g, D]."""
    shape = (x.shape[0], block.head_count + 2 * block.kv_head_count, block.head_size)
    for w, layer in zip(stack.layers, memory, strict=True):
        qkv = kernels.normed_product(x, w.attention_norm, block.norm_eps, w.qkv).view(shape)
        x = kernels.add_product(x, kernels.attend(qkv, w, block, rotary, layer, places), w.output)
        x = kernels.add_product(x, kernels.gated(x, w.mlp_norm, block.norm_eps, w.gate_up), w.down)
    return x


class TorchStepKernels:
    """On torch, in the weights' dtype throughout. Attention masks the bucket's positions, so that a row costs what the
    bucket has room for: this is the twin of the tests, and what runs where there is no Triton."""

    batch_invariant = False

    def __init__(self, dtype: torch.dtype, *, row_wise: bool) -> None:
        self.row_dtype, self._row_wise = dtype, row_wise

    def rotary(self, block: BlockConfig, position_count: int, device: torch.device) -> Rotary:
        return Rotary(block, position_count, self.row_dtype, device)

    def norm(self, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        return rms_norm(x, weight, eps)

    def normed_product(self, x: Tensor, norm: Tensor, eps: float, matrix: Matrix) -> Tensor:
        return product(rms_norm(x, norm, eps), matrix, row_wise=self._row_wise)

    def gated(self, x: Tensor, norm: Tensor, eps: float, gate_up: Matrix) -> Tensor:
        gate, up = self.normed_product(x, norm, eps, gate_up).chunk(2, -1)
        return F.silu(gate) * up

    def add_product(self, x: Tensor, y: Tensor, matrix: Matrix) -> Tensor:
        return x + product(y, matrix, row_wise=self._row_wise)

    def project(self, x: Tensor, matrix: Tensor, bias: Tensor) -> Tensor:
        return product(x, matrix, bias, row_wise=self._row_wise)

    def logits(self, x: Tensor, norm: tuple[Tensor, float] | None, matrix: Tensor) -> Tensor:
        x = x if norm is None else rms_norm(x, *norm)
        return product(x, matrix, row_wise=self._row_wise).float()

    def attend(
        self, qkv: Tensor, w: LayerWeights, block: BlockConfig, rotary: Rotary, memory: Tensor, places: Places
    ) -> Tensor:
        heads, both = block.head_count, block.head_count + block.kv_head_count
        qk = rotary.apply(rms_norm(qkv[:, :both], w.qk_norm, block.norm_eps), *rotary.at(places.positions))
        memory[0].index_copy_(0, places.targets, qk[:, heads:])
        memory[1].index_copy_(0, places.targets, qkv[:, both:])
        inner = torch.arange(places.page_size, device=qkv.device)
        readable = (places.table[:, :, None] * places.page_size + inner).flatten(1)
        keys, values = (part[readable].transpose(1, 2) for part in (memory[0], memory[1]))
        order = torch.arange(readable.shape[1], device=qkv.device)
        mask = (order <= places.positions[:, None])[:, None, None]
        rows = qkv.shape[0]
        grouped = qk[:, :heads].reshape(rows, block.kv_head_count, heads // block.kv_head_count, -1)
        shape = (rows, *keys.shape[1:])
        out = F.scaled_dot_product_attention(grouped, keys.expand(shape), values.expand(shape), attn_mask=mask)
        return out.reshape(rows, -1)

    def uniforms(self, slots: SlotTensors, slot: Tensor, frame: Tensor) -> Tensor:
        seeds = slots.seeds[slot]
        return frame_uniforms(seeds & _WORD, seeds >> 32 & _WORD, frame, slots.codes.shape[1])

    def draw_first(
        self, logits: Tensor, draws: Draws, suppressed: Tensor, eos: int, table: CodeTable, code_count: int
    ) -> Tensor:
        slots, slot = draws.slots, draws.slot
        settings = slots.settings[slot]
        logits = penalise(logits, slots.seen[slot], settings[:, 8]).masked_fill(suppressed, NEVER)
        is_end = torch.arange(logits.shape[1], device=logits.device) == eos
        logits = logits.masked_fill(is_end & (draws.masked[:, None] > 0), NEVER)
        code = draw(logits, draws.uniforms[:, 0], _sampling(settings, 0), _ANY)
        slots.seen.index_put_((slot, code), torch.ones((), dtype=torch.bool, device=code.device))
        self._keep(0, code, draws)
        # A row that just ended has a control id here; its predictor runs on code 0 and nobody looks.
        return self._following(0, code.where(code < code_count, 0), table)

    def draw_next(self, codebook: int, logits: Tensor, draws: Draws, table: CodeTable | None) -> Tensor | None:
        rows = _sampling(draws.slots.settings[draws.slot], 4)
        code = draw(logits, draws.uniforms[:, codebook], rows, _ANY)
        self._keep(codebook, code, draws)
        return None if table is None else self._following(codebook, code, table)

    @staticmethod
    def _keep(codebook: int, code: Tensor, draws: Draws) -> None:
        draws.codes[:, codebook] = code
        draws.slots.codes[:, codebook].index_copy_(0, draws.slot, code)

    def _following(self, codebook: int, code: Tensor, table: CodeTable) -> Tensor:
        return table.rows[code + table.first[codebook]].to(self.row_dtype)


def _sampling(settings: Tensor, first: int) -> RowSampling:
    greedy, temperature, top_k, top_p = settings[:, first : first + 4].unbind(1)
    return RowSampling(greedy > 0, temperature, top_k.long(), top_p)
