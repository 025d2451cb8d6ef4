"""The snake activation as one Triton kernel: the past before it, the activation behind it, the new past kept.

    out  [ past | x + sin²(αx)/β ]        kept = the last columns of out
           columns   length

On torch that is seven kernels, and a step has 29 of them, so that at batch 1 half of what the device is asked for is
this. Computed in float32 whatever the dtype. Importing this module needs Triton; `decoder.py` holds the twin on torch,
which tests/codec/test_snake.py compares it with.
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

BLOCK = 1024


@triton.jit  # type: ignore[untyped-decorator]
def _snake(  # type: ignore[no-untyped-def]
    x, alpha, inverse_beta, past, out, kept, length, channels, columns, past_stride, kept_stride, BLOCK: tl.constexpr
):
    row = tl.program_id(1).to(tl.int64)
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    size, before = (columns + length) * channels, columns * channels
    inside, is_new = at < size, at >= before
    channel = at % channels
    value = tl.load(x + row * length * channels + at - before, mask=inside & is_new, other=0.0).to(tl.float32)
    a = tl.load(alpha + channel, mask=inside, other=0.0).to(tl.float32)
    b = tl.load(inverse_beta + channel, mask=inside, other=0.0).to(tl.float32)
    s = tl.sin(value * a)
    old = tl.load(past + row * past_stride + at, mask=inside & (at < before), other=0.0).to(tl.float32)
    y = tl.where(is_new, value + s * s * b, old)
    tl.store(out + row * size + at, y, mask=inside)
    tl.store(kept + row * kept_stride + at - length * channels, y, mask=inside & (at >= length * channels))


def snake(x: Tensor, alpha: Tensor, inverse_beta: Tensor, past: Tensor, kept: Tensor) -> Tensor:
    """x [B, L, C] contiguous, past and kept [B, K, C] with contiguous rows → [B, K + L, C]; `kept` is written. K may
    be 0."""
    rows, length, channels = x.shape
    columns = past.shape[1]
    assert x.is_contiguous(), "the kernel walks x as it lies"
    out = x.new_empty(rows, columns + length, channels)
    grid = (triton.cdiv((columns + length) * channels, BLOCK), rows)
    sizes = (length, channels, columns, past.stride(0), kept.stride(0))
    _snake[grid](x, alpha, inverse_beta, past, out, kept, *sizes, BLOCK=BLOCK)
    return out
