"""Weights of one product, plain or int8, and the product itself on torch.

int8 is weight-only: each output has one scale, its largest weight over 127, and weights are rounded to the nearest;
activations keep their dtype. What it costs in accuracy is measured by `bench tts_lm`.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

LARGEST = 127
TORCH_BLOCK = 64
"""torch's own int8 product reads beyond its arguments at other sizes (2.13.0: 96 x 40 ends the process)."""


@dataclass(frozen=True)
class Int8Matrix:
    """`values` [O, I] int8 times `scales` [O] float32."""

    values: Tensor
    scales: Tensor

    @property
    def shape(self) -> torch.Size:
        return self.values.shape

    def wide(self) -> Tensor:
        """What the matrix stands for, float32."""
        return self.values.float() * self.scales[:, None]


Matrix = Tensor | Int8Matrix


def quantised(weight: Tensor) -> Int8Matrix:
    """The nearest int8 matrix; a row of zeros has scale 0 and stays one."""
    wide = weight.float()
    scales = wide.abs().amax(1) / LARGEST
    values = (wide / torch.where(scales > 0, scales, 1)[:, None]).round().to(torch.int8)
    return Int8Matrix(values, scales)


def product(x: Tensor, weight: Matrix, bias: Tensor | None = None, *, row_wise: bool = False) -> Tensor:
    """x [R, I] · weightᵀ [I, O] (+ bias). `row_wise` computes each row alone, so that no row's bits depend on the
    others.
    """
    if row_wise and x.shape[0] > 1:
        return torch.cat([_product(row, weight, bias) for row in torch.split(x, 1)])
    return _product(x, weight, bias)


def _product(x: Tensor, weight: Matrix, bias: Tensor | None) -> Tensor:
    if not isinstance(weight, Int8Matrix):
        return F.linear(x, weight, bias)
    if x.device.type == "cpu" and not (weight.shape[0] % TORCH_BLOCK or weight.shape[1] % TORCH_BLOCK):
        out = torch._weight_int8pack_mm(x, weight.values, weight.scales.to(x.dtype))
    else:
        out = F.linear(x, weight.values.to(x.dtype)) * weight.scales.to(x.dtype)
    return out if bias is None else out + bias
