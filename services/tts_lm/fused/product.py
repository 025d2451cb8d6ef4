"""Products of a few rows with a weight matrix, and what stands before and behind them in one kernel.

Few rows are a matter of reading every weight once: a program owns some outputs, reads their weights in order and
multiplies up to sixteen rows with each tile. The tile and the order of its sums are the same for any number of rows,
so a row's bits never depend on its company. Sums are float32; a norm before the product costs nothing, because its
scale is one number per row and can be applied to the sums:

    norm(x)·Wᵀ = (x∘g)·Wᵀ · 1/rms(x)
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

ROWS = 16
"""Rows of one program; the least that tensor cores multiply."""


@dataclass(frozen=True)
class Tile:
    """How many outputs a program owns, how many of their weights it reads at once, by how many warps, how many reads
    ahead. Only `inputs` is part of the order of sums."""

    outputs: int = 16
    inputs: int = 128
    warps: int = 4
    stages: int = 4


TILE = Tile()


@triton.jit(do_not_specialize=["row_count"])
def product_kernel(
    x_ptr,
    weight_ptr,
    norm_ptr,
    bias_ptr,
    residual_ptr,
    out_ptr,
    row_count,
    eps,
    IN: tl.constexpr,
    OUT: tl.constexpr,
    NORMED: tl.constexpr,
    GATED: tl.constexpr,
    BIASED: tl.constexpr,
    ADDED: tl.constexpr,
    ROWS: tl.constexpr,
    OUTPUTS: tl.constexpr,
    INPUTS: tl.constexpr,
):
    """x [R, IN], weight [OUT, IN], or [2·OUT, IN] when GATED: gates, then what they let through."""
    outputs = tl.program_id(0) * OUTPUTS + tl.arange(0, OUTPUTS)
    rows = tl.program_id(1) * ROWS + tl.arange(0, ROWS)
    row_in, output_in = rows < row_count, outputs < OUT
    total = tl.zeros([ROWS, OUTPUTS], tl.float32)
    through = tl.zeros([ROWS, OUTPUTS], tl.float32)
    squares = tl.zeros([ROWS], tl.float32)
    for first in range(0, IN, INPUTS):
        inputs = first + tl.arange(0, INPUTS)
        input_in = inputs < IN
        tile = input_in[:, None] & output_in[None, :]
        places = outputs[None, :].to(tl.int64) * IN + inputs[:, None]
        weight = tl.load(weight_ptr + places, mask=tile, other=0.0)
        at = rows[:, None] * IN + inputs[None, :]
        x = tl.load(x_ptr + at, mask=row_in[:, None] & input_in[None, :], other=0.0).to(tl.float32)
        if NORMED:
            squares += tl.sum(x * x, 1)
            x = x * tl.load(norm_ptr + inputs, mask=input_in, other=0.0).to(tl.float32)[None, :]
        x = x.to(weight.dtype)
        total = tl.dot(x, weight, total, input_precision="ieee")
        if GATED:
            other = tl.load(weight_ptr + OUT * IN + places, mask=tile, other=0.0)
            through = tl.dot(x, other, through, input_precision="ieee")
    if NORMED:
        scale = 1.0 / tl.sqrt(squares / IN + eps)
        total = total * scale[:, None]
        through = through * scale[:, None]
    if GATED:
        total = total / (1.0 + tl.exp(-total)) * through
    if BIASED:
        total += tl.load(bias_ptr + outputs, mask=output_in, other=0.0).to(tl.float32)[None, :]
    places = rows[:, None] * OUT + outputs[None, :]
    tile = row_in[:, None] & output_in[None, :]
    if ADDED:
        total += tl.load(residual_ptr + places, mask=tile, other=0.0).to(tl.float32)
    tl.store(out_ptr + places, total.to(out_ptr.dtype.element_ty), mask=tile)


@triton.jit
def norm_kernel(x_ptr, weight_ptr, out_ptr, eps, WIDTH: tl.constexpr, BLOCK: tl.constexpr):
    """One row of x [R, WIDTH] to the root mean square of 1, times the weight."""
    row, places = tl.program_id(0), tl.arange(0, BLOCK)
    inside = places < WIDTH
    x = tl.load(x_ptr + row * WIDTH + places, mask=inside, other=0.0).to(tl.float32)
    scale = 1.0 / tl.sqrt(tl.sum(x * x, 0) / WIDTH + eps)
    out = x * scale * tl.load(weight_ptr + places, mask=inside, other=0.0).to(tl.float32)
    tl.store(out_ptr + row * WIDTH + places, out.to(out_ptr.dtype.element_ty), mask=inside)


def product(
    x: Tensor,
    weight: Tensor,
    out_dtype: torch.dtype,
    *,
    norm: Tensor | None = None,
    eps: float = 0.0,
    bias: Tensor | None = None,
    residual: Tensor | None = None,
    gated: bool = False,
    tile: Tile = TILE,
) -> Tensor:
    """x [R, I] · weightᵀ [I, O] → [R, O]; x normed before it, gated by SiLU, `bias` and `residual` added behind it."""
    rows, width = x.shape[0], weight.shape[0] // 2 if gated else weight.shape[0]
    out = torch.empty(rows, width, dtype=out_dtype, device=x.device)
    grid = (triton.cdiv(width, tile.outputs), triton.cdiv(rows, ROWS))
    product_kernel[grid](
        x,
        weight,
        weight if norm is None else norm,
        weight if bias is None else bias,
        x if residual is None else residual,
        out,
        rows,
        eps,
        IN=x.shape[1],
        OUT=width,
        NORMED=norm is not None,
        GATED=gated,
        BIASED=bias is not None,
        ADDED=residual is not None,
        ROWS=ROWS,
        OUTPUTS=tile.outputs,
        INPUTS=tile.inputs,
        num_warps=tile.warps,
        num_stages=tile.stages,
    )
    return out


def rms_norm(x: Tensor, weight: Tensor, eps: float, out_dtype: torch.dtype) -> Tensor:
    """x [R, W] normed over its last dimension."""
    out = torch.empty(x.shape, dtype=out_dtype, device=x.device)
    width = x.shape[1]
    norm_kernel[(x.shape[0],)](x, weight, out, eps, WIDTH=width, BLOCK=triton.next_power_of_2(width), num_warps=4)
    return out
