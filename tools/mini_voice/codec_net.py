"""The codec's decoder as a trainable network; module names are the official tensor names, so its state exports.

Whole sequences only, no state; what streams is services/codec. Source: model document section 6. Channels first.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_DILATIONS = (1, 3, 9)


class CausalConv(nn.Module):
    def __init__(self, into: int, out: int, kernel: int, dilation: int = 1, groups: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv1d(into, out, kernel, dilation=dilation, groups=groups)
        self.before = (kernel - 1) * dilation

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv(F.pad(x, (self.before, 0)))
        return y


class TransposedConv(nn.Module):
    def __init__(self, into: int, out: int, kernel: int, stride: int) -> None:
        super().__init__()
        self.conv = nn.ConvTranspose1d(into, out, kernel, stride)
        self.surplus = kernel - stride

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv(x)
        return y[..., : y.shape[-1] - self.surplus]


class Snake(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.alpha, self.beta = nn.Parameter(torch.zeros(channels)), nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = _SnakeCurve.apply(x, self.alpha.exp()[:, None], 1 / (self.beta.exp()[:, None] + 1e-9))  # type: ignore[no-untyped-call]
        return y


class _SnakeCurve(torch.autograd.Function):
    """x + b sin²(a x), for a and b [C, 1]: in the passes that autograd makes of it, it took half of a step on a CPU."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, a: Tensor, b: Tensor) -> Tensor:
        squares = (x * a).sin_().square_()
        ctx.save_for_backward(x, a, b, squares)
        return torch.addcmul(x, squares, b)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x, a, b, squares = ctx.saved_tensors
        (grad,) = grads
        turned = (x * (2 * a)).sin_().mul_(grad)
        to_a = b * torch.einsum("nct,nct->c", turned, x)[:, None]
        to_b = torch.einsum("nct,nct->c", grad, squares)[:, None]
        return torch.addcmul(grad, turned, a * b), to_a, to_b


class ResidualUnit(nn.Module):
    def __init__(self, channels: int, dilation: int) -> None:
        super().__init__()
        self.act1, self.act2 = Snake(channels), Snake(channels)
        self.conv1 = CausalConv(channels, channels, 7, dilation)
        self.conv2 = CausalConv(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = x + self.conv2(self.act2(self.conv1(self.act1(x))))
        return y


class Block(nn.Module):
    def __init__(self, channels: int, stride: int) -> None:
        super().__init__()
        out = channels // 2
        units = [ResidualUnit(out, dilation) for dilation in _DILATIONS]
        self.block = nn.Sequential(Snake(channels), TransposedConv(channels, out, 2 * stride, stride), *units)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.block(x)
        return y


class ConvNext(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.dwconv = CausalConv(width, width, 7, groups=width)
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.pwconv1, self.pwconv2 = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.gamma = nn.Parameter(torch.full((width,), 0.1))

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.dwconv(x).transpose(1, 2))
        out: Tensor = x + (self.gamma * self.pwconv2(F.gelu(self.pwconv1(y)))).transpose(1, 2)
        return out


class Scale(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.full((width,), 0.2))


class Attention(nn.Module):
    def __init__(self, hidden: int, heads: int, head_dim: int) -> None:
        super().__init__()
        self.heads, self.head_dim = heads, head_dim
        for name in ("q_proj", "k_proj", "v_proj"):
            setattr(self, name, nn.Linear(hidden, heads * head_dim, bias=False))
        self.o_proj = nn.Linear(heads * head_dim, hidden, bias=False)

    def forward(self, x: Tensor, angles: tuple[Tensor, Tensor], mask: Tensor) -> Tensor:
        q, k, v = (
            getattr(self, name)(x).view(*x.shape[:2], self.heads, self.head_dim).transpose(1, 2)
            for name in ("q_proj", "k_proj", "v_proj")
        )
        out = F.scaled_dot_product_attention(rotate(q, angles), rotate(k, angles), v, attn_mask=mask)
        y: Tensor = self.o_proj(out.transpose(1, 2).flatten(2))
        return y


class FeedForward(nn.Module):
    def __init__(self, hidden: int, inner: int) -> None:
        super().__init__()
        self.gate_proj, self.up_proj = nn.Linear(hidden, inner, bias=False), nn.Linear(hidden, inner, bias=False)
        self.down_proj = nn.Linear(inner, hidden, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))
        return y


class Layer(nn.Module):
    def __init__(self, c: dict[str, Any]) -> None:
        super().__init__()
        hidden, eps = c["hidden_size"], c["rms_norm_eps"]
        self.input_layernorm = nn.RMSNorm(hidden, eps)
        self.self_attn = Attention(hidden, c["num_attention_heads"], c["head_dim"])
        self.self_attn_layer_scale = Scale(hidden)
        self.post_attention_layernorm = nn.RMSNorm(hidden, eps)
        self.mlp = FeedForward(hidden, c["intermediate_size"])
        self.mlp_layer_scale = Scale(hidden)

    def forward(self, x: Tensor, angles: tuple[Tensor, Tensor], mask: Tensor) -> Tensor:
        x = x + self.self_attn_layer_scale.scale * self.self_attn(self.input_layernorm(x), angles, mask)
        y: Tensor = x + self.mlp_layer_scale.scale * self.mlp(self.post_attention_layernorm(x))
        return y


class Transformer(nn.Module):
    def __init__(self, c: dict[str, Any]) -> None:
        super().__init__()
        self.window, self.head_dim, self.theta = c["sliding_window"], c["head_dim"], c["rope_theta"]
        self.input_proj = nn.Linear(c["latent_dim"], c["hidden_size"])
        self.layers = nn.ModuleList(Layer(c) for _ in range(c["num_hidden_layers"]))
        self.norm = nn.RMSNorm(c["hidden_size"], c["rms_norm_eps"])
        self.output_proj = nn.Linear(c["hidden_size"], c["latent_dim"])

    def forward(self, x: Tensor) -> Tensor:
        places = torch.arange(x.shape[-1], device=x.device)
        angles = rotary(places, self.head_dim, self.theta)
        behind = places[:, None] - places
        mask = (behind >= 0) & (behind < self.window)
        x = self.input_proj(x.transpose(1, 2))
        for layer in self.layers:
            x = layer(x, angles, mask)
        y: Tensor = self.output_proj(self.norm(x)).transpose(1, 2)
        return y


class CodecDecoder(nn.Module):
    """z [B, codebook_dim, T], the summed and projected codebook rows → samples [B, 1920·T], not clamped."""

    def __init__(self, c: dict[str, Any]) -> None:
        super().__init__()
        latent, channels = c["latent_dim"], c["decoder_dim"]
        self.pre_conv = CausalConv(c["codebook_dim"], latent, 3)
        self.pre_transformer = Transformer(c)
        self.upsample = nn.ModuleList(
            nn.ModuleList([TransposedConv(latent, latent, ratio, ratio), ConvNext(latent)])
            for ratio in c["upsampling_ratios"]
        )
        parts: list[nn.Module] = [CausalConv(latent, channels, 7)]
        for rate in c["upsample_rates"]:
            parts.append(Block(channels, rate))
            channels //= 2
        self.decoder = nn.ModuleList([*parts, Snake(channels), CausalConv(channels, 1, 7)])

    def forward(self, z: Tensor) -> Tensor:
        x = self.pre_transformer(self.pre_conv(z))
        for stages in self.upsample:
            for stage in stages:  # type: ignore[attr-defined]
                x = stage(x)
        for part in self.decoder:
            x = part(x)
        samples: Tensor = x.squeeze(1)
        return samples


def rotary(places: Tensor, head_dim: int, theta: float) -> tuple[Tensor, Tensor]:
    """cos and sin [..., head_dim / 2] of half-split rotary positions."""
    frequency = theta ** (-torch.arange(0, head_dim, 2, device=places.device, dtype=torch.float32) / head_dim)
    angle = places[..., None].to(torch.float32) * frequency
    return angle.cos(), angle.sin()


def rotate(x: Tensor, angles: tuple[Tensor, Tensor]) -> Tensor:
    """x [B, heads, T, D]: pairs (i, i + D/2) turned; angles [T, D/2] or [B, 1, T, D/2]."""
    a, b = x.chunk(2, dim=-1)
    cos, sin = angles
    return torch.cat([a * cos - b * sin, b * cos + a * sin], dim=-1)
