"""The Triton kernels as the step's arithmetic.

The stream of rows is float32 from layer to layer, and so are norms, rotation, softmax, logits and sampling: what is
rounded to the weights' dtype is what tensor cores multiply, and the keys and values that are kept.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from services.tts_lm.fused.attention import attend
from services.tts_lm.fused.product import ROWS, product, rms_norm
from services.tts_lm.fused.sampling import frame_uniforms, sample
from services.tts_lm.model.config import BlockConfig
from services.tts_lm.model.layers import rotary_angles
from services.tts_lm.model.matrix import Int8Matrix, Matrix
from services.tts_lm.model.step_kernels import CodeTable, Draws, Places, SlotTensors
from services.tts_lm.model.weights import LayerWeights

Angles = tuple[Tensor, Tensor]


class TritonStepKernels:
    """`invariant`: products of any number of rows by the one kernel whose sums never depend on it. Otherwise more than
    sixteen rows go to the vendor's library, which reads the weights once for all of them."""

    row_dtype = torch.float32

    def __init__(self, dtype: torch.dtype, *, invariant: bool) -> None:
        self._dtype, self.batch_invariant = dtype, invariant

    def rotary(self, block: BlockConfig, position_count: int, device: torch.device) -> Angles:
        angle = rotary_angles(block, position_count)
        return angle.cos().to(device), angle.sin().to(device)

    def norm(self, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        return rms_norm(x, weight, eps, torch.float32)

    def normed_product(self, x: Tensor, norm: Tensor, eps: float, matrix: Matrix) -> Tensor:
        if self._by_library(x):
            return F.linear(rms_norm(x, norm, eps, self._dtype), _plain(matrix))
        return product(x, _plain(matrix), self._dtype, norm=norm, eps=eps)

    def gated(self, x: Tensor, norm: Tensor, eps: float, gate_up: Matrix) -> Tensor:
        if self._by_library(x):
            gate, up = F.linear(rms_norm(x, norm, eps, self._dtype), _plain(gate_up)).chunk(2, -1)
            return F.silu(gate) * up
        return product(x, _plain(gate_up), self._dtype, norm=norm, eps=eps, gated=True)

    def add_product(self, x: Tensor, y: Tensor, matrix: Matrix) -> Tensor:
        if self._by_library(x):
            return x + F.linear(y, _plain(matrix))
        return product(y, _plain(matrix), torch.float32, residual=x)

    def project(self, x: Tensor, matrix: Tensor, bias: Tensor) -> Tensor:
        return product(x, matrix, torch.float32, bias=bias)

    def logits(self, x: Tensor, norm: tuple[Tensor, float] | None, matrix: Tensor) -> Tensor:
        if norm is None:
            return product(x, matrix, torch.float32)
        return product(x, matrix, torch.float32, norm=norm[0], eps=norm[1])

    def attend(
        self, qkv: Tensor, w: LayerWeights, block: BlockConfig, rotary: Angles, memory: Tensor, places: Places
    ) -> Tensor:
        return attend(
            qkv,
            w.qk_norm,
            *rotary,
            block.norm_eps,
            memory,
            places.positions,
            places.targets,
            places.table,
            places.page_size,
            alone=places.alone,
        )

    def uniforms(self, slots: SlotTensors, slot: Tensor, frame: Tensor) -> Tensor:
        return frame_uniforms(slots.seeds, slot, frame, slots.codes.shape[1])

    def draw_first(
        self, logits: Tensor, draws: Draws, suppressed: Tensor, eos: int, table: CodeTable, code_count: int
    ) -> Tensor:
        slots = draws.slots
        following = sample(
            logits,
            draws.uniforms,
            slots.settings,
            draws.slot,
            draws.codes,
            slots.codes,
            0,
            table=table.rows,
            table_offset=table.first[0],
            code_count=code_count,
            masked=draws.masked,
            seen=slots.seen,
            suppressed=suppressed,
            eos=eos,
        )
        assert following is not None
        return following

    def draw_next(self, codebook: int, logits: Tensor, draws: Draws, table: CodeTable | None) -> Tensor | None:
        return sample(
            logits,
            draws.uniforms,
            draws.slots.settings,
            draws.slot,
            draws.codes,
            draws.slots.codes,
            codebook,
            table=None if table is None else table.rows,
            table_offset=0 if table is None else table.first[codebook],
            code_count=logits.shape[1],
        )

    def _by_library(self, x: Tensor) -> bool:
        return not self.batch_invariant and x.shape[0] > ROWS


def _plain(matrix: Matrix) -> Tensor:
    assert not isinstance(matrix, Int8Matrix), "int8 weights are for the CPU"
    return matrix
