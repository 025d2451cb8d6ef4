"""One Qwen3 block, shared by talker and code predictor: norm, rotary positions, attention, feed-forward.

Knows rows, not sequences: where keys and values live is the caller's `Attention`. Source: model document 3.2.
"""

from __future__ import annotations

from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from services.tts_lm.model.config import BlockConfig
from services.tts_lm.model.matrix import product
from services.tts_lm.model.weights import LayerWeights, StackWeights


class Attention(Protocol):
    """Keeps the new keys and values of one layer and attends: q [R, h, D], k and v [R, g, D] → [R, h·D]."""

    def __call__(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor: ...


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """Over the last dimension: float32 inside, rounded to x's dtype, then times the weight in that dtype."""
    if x.dtype == torch.float32:
        return F.rms_norm(x, x.shape[-1:], None, eps) * weight
    wide = x.float()
    return (wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + eps)).to(x.dtype) * weight


def rotary_angles(block: BlockConfig, position_count: int) -> Tensor:
    """Angles of the pairs (i, i + D/2): [positions, D/2] float32."""
    half = block.head_size // 2
    frequency = 1.0 / block.rope_theta ** (torch.arange(0, half, dtype=torch.float32) * 2 / block.head_size)
    return torch.outer(torch.arange(position_count, dtype=torch.float32), frequency)


class Rotary:
    """NeoX half-split rotary positions from a precomputed table: pairs (i, i + D/2), cos and sin in float32, then
    cast.
    """

    def __init__(self, block: BlockConfig, position_count: int, dtype: torch.dtype, device: torch.device) -> None:
        angle = rotary_angles(block, position_count)
        self._half = block.head_size // 2
        self._cos = torch.cat([angle.cos(), angle.cos()], 1).to(device, dtype)
        # The rolled input needs −sin in its first half: rotate_half(x) = (−x₂, x₁).
        self._sin = torch.cat([-angle.sin(), angle.sin()], 1).to(device, dtype)

    def at(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """cos and signed sin for positions [R] → two [R, 1, D]."""
        return self._cos[positions][:, None], self._sin[positions][:, None]

    def apply(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """Rotate x [R, heads, D]."""
        return x * cos + x.roll(self._half, -1) * sin


def run_stack(
    x: Tensor,
    weights: StackWeights,
    block: BlockConfig,
    rotary: Rotary,
    positions: tuple[Tensor, Tensor],
    attention: Attention,
    *,
    row_wise: bool = False,
) -> Tensor:
    """All layers and the last norm: rows x [R, H] at rotary `positions` → [R, H]. x itself is left alone."""
    for index, layer in enumerate(weights.layers):
        x = _layer(x, layer, index, block, rotary, positions, attention, row_wise)
    return rms_norm(x, weights.norm, block.norm_eps)


def _layer(
    x: Tensor,
    w: LayerWeights,
    index: int,
    block: BlockConfig,
    rotary: Rotary,
    positions: tuple[Tensor, Tensor],
    attention: Attention,
    row_wise: bool,
) -> Tensor:
    heads, both = block.head_count, block.head_count + block.kv_head_count
    qkv = product(rms_norm(x, w.attention_norm, block.norm_eps), w.qkv, row_wise=row_wise)
    qkv = qkv.view(x.shape[0], both + block.kv_head_count, block.head_size)
    qk = rotary.apply(rms_norm(qkv[:, :both], w.qk_norm, block.norm_eps), *positions)
    attended = attention(index, qk[:, :heads], qk[:, heads:], qkv[:, both:])
    x = x + product(attended, w.output, row_wise=row_wise)
    gate, up = product(rms_norm(x, w.mlp_norm, block.norm_eps), w.gate_up, row_wise=row_wise).chunk(2, -1)
    return x + product(F.silu(gate) * up, w.down, row_wise=row_wise)
