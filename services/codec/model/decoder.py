"""The 12 Hz decoder: codes and a state → samples, any number of frames per call, exact at any division.

Strictly causal, 1920 samples per frame at real dimensions, no look-ahead. Source: model document section 6 (qwen-tts
0.1.1, `tokenizer_12hz`); tests/codec/test_parity.py ties it to stored outputs of that code. It refuses to know slots'
owners, packets and sound formats. Everything lies channels last: [B, time, channels].
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from services.codec.model.config import DecoderConfig
from services.codec.model.conv import Product
from services.codec.model.streaming import CausalConv, DecoderState, Rotary, Step, Tail, rotate


class Decoder:
    """Weights only; memory comes in as a `DecoderState`. Built by `weights.load_decoder`."""

    def __init__(
        self,
        config: DecoderConfig,
        *,
        codebooks: Tensor,
        pre_conv: CausalConv,
        transformer: Transformer,
        upsamples: list[Upsample],
        conv_in: CausalConv,
        blocks: list[Block],
        snake_out: Snake,
        conv_out: CausalConv,
        tail_width: int,
    ) -> None:
        """`codebooks` [Q · codebook_size, codebook_dim]: the tables with their projections folded in."""
        self.config = config
        self._codebooks = codebooks
        self._table_starts = torch.arange(config.num_quantizers, device=codebooks.device) * config.codebook_size
        self._pre_conv = pre_conv
        self._transformer = transformer
        self._upsamples = upsamples
        self._conv_in = conv_in
        self._blocks = blocks
        self._snake_out = snake_out
        self._conv_out = conv_out
        self._tail_width = tail_width

    @property
    def dtype(self) -> torch.dtype:
        return self._codebooks.dtype

    @property
    def device(self) -> torch.device:
        return self._codebooks.device

    def new_state(self, slot_count: int, max_frames: int) -> DecoderState:
        """Memory for `slot_count` streams, advanced at most `max_frames` frames per call."""
        c = self.config
        ring = (slot_count, c.sliding_window - 1 + max_frames, c.num_key_value_heads, c.head_dim)

        def zeros(*shape: int) -> Tensor:
            return torch.zeros(shape, dtype=self.dtype, device=self.device)

        return DecoderState(
            keys=[zeros(*ring) for _ in range(c.num_hidden_layers)],
            values=[zeros(*ring) for _ in range(c.num_hidden_layers)],
            tails=zeros(slot_count, self._tail_width),
            position=torch.zeros(slot_count, dtype=torch.int64, device=self.device),
        )

    @torch.inference_mode()
    def __call__(self, codes: Tensor, state: DecoderState, active: Tensor, fresh: Tensor) -> Tensor:
        """codes [B, T, Q] int64, rows `active` [B] of the state, `fresh` [B] bool → samples [B, 1920·T] in [−1, 1].

        Row b advances slot active[b] by T frames, from nothing where fresh[b]; other rows of the state stay bit for
        bit. T ≤ the state's `max_frames`. Samples are float32 (float64 for a float64 decoder).
        """
        step = Step(state, active, fresh, codes.shape[1], self.config.sliding_window)
        x = F.embedding(codes + self._table_starts, self._codebooks).sum(dim=2)
        x = self._pre_conv(x, step)
        x = self._transformer(x, step)
        for upsample in self._upsamples:
            x = upsample(x, step)
        x = self._conv_in(x, step)
        for block in self._blocks:
            x = block(x, step)
        x = snaked(self._snake_out, self._conv_out, x, step)
        step.close()
        wide = torch.float64 if x.dtype == torch.float64 else torch.float32
        return x.squeeze(2).to(wide).clamp(-1.0, 1.0)


FusedSnake = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], Tensor]
"""`fused.snake`: x, alpha, inverse_beta, past, kept → the past and the activation behind it."""


@dataclass
class Snake:
    """x + sin²(αx)/β, with `alpha` = e^α and `inverse_beta` = 1/(e^β + 1e-9) folded at load; both [C].

    With `fused` one kernel does it all; without, torch does.
    """

    alpha: Tensor
    inverse_beta: Tensor
    fused: FusedSnake | None = None

    def alone(self, x: Tensor) -> Tensor:
        """x [B, L, C] → the same."""
        if self.fused is not None:
            nothing = x[:, :0]
            return self.fused(x, self.alpha, self.inverse_beta, nothing, nothing)
        out = torch.empty_like(x)
        self._into(x, out)
        return out

    def behind(self, tail: Tail, x: Tensor, step: Step) -> Tensor:
        """x [B, L, C] → [B, columns + L, C]: what the tail remembers, then the activation; its end is remembered."""
        if self.fused is not None:
            return self.fused(x, self.alpha, self.inverse_beta, step.past(tail), step.kept(tail))
        buffer, body = step.open(tail, x.shape[1])
        self._into(x, body)
        step.keep(tail, buffer)
        return buffer

    def _into(self, x: Tensor, out: Tensor) -> None:
        s = (x * self.alpha).sin_().square_()
        torch.addcmul(x, s, self.inverse_beta, out=out)


def snaked(snake: Snake, conv: CausalConv, x: Tensor, step: Step) -> Tensor:
    """conv(snake(x)), the activation written straight behind the convolution's past."""
    return conv.product(snake.behind(conv.tail, x, step))


@dataclass
class Norm:
    """RMSNorm in float32 whatever the working dtype, as the reference has it."""

    weight: Tensor
    eps: float

    def __call__(self, x: Tensor) -> Tensor:
        return F.rms_norm(x.float(), (x.shape[-1],), None, self.eps).to(x.dtype) * self.weight


@dataclass
class Layer:
    """`out` and `down` carry the layer scales."""

    attention_norm: Norm
    qkv: Product
    out: Product
    mlp_norm: Norm
    gate_up: Product
    down: Product


@dataclass
class Transformer:
    project_in: Product
    layers: list[Layer]
    norm: Norm
    project_out: Product
    rotary: Rotary
    head_counts: list[int]
    head_dim: int

    def __call__(self, x: Tensor, step: Step) -> Tensor:
        cos, sin = self.rotary.angles(step.positions)
        x = self.project_in(x)
        for i, layer in enumerate(self.layers):
            qkv = layer.qkv(layer.attention_norm(x))
            heads = qkv.view(*qkv.shape[:2], -1, self.head_dim)
            q, k, v = torch.split(heads, self.head_counts, dim=2)
            attended = step.attend(i, rotate(q, cos, sin), rotate(k, cos, sin), v)
            x = x + layer.out(attended)
            gate, up = layer.gate_up(layer.mlp_norm(x)).chunk(2, dim=-1)
            x = x + layer.down(F.silu(gate) * up)
        return self.project_out(self.norm(x))


@dataclass
class Upsample:
    """Transposed convolution with kernel = stride (a linear layer and a reshape), then a ConvNeXt block.

    `depthwise` [C, 7] and `depthwise_bias` [C]; `narrow` carries γ.
    """

    expand: Product
    ratio: int
    depthwise: Tensor
    depthwise_bias: Tensor
    tail: Tail
    norm: Callable[[Tensor], Tensor]
    widen: Product
    narrow: Product

    def __call__(self, x: Tensor, step: Step) -> Tensor:
        x = self.expand(x).reshape(x.shape[0], x.shape[1] * self.ratio, -1)
        windows = step.with_past(self.tail, x).unfold(1, self.tail.columns + 1, 1)  # [B, L, C, 7]
        y = (windows * self.depthwise).sum(dim=-1) + self.depthwise_bias
        return x + self.narrow(F.gelu(self.widen(self.norm(y))))


@dataclass
class Residual:
    snake_wide: Snake
    wide: CausalConv
    snake_point: Snake
    point: Product

    def __call__(self, x: Tensor, step: Step) -> Tensor:
        y = snaked(self.snake_wide, self.wide, x, step)
        return self.point(self.snake_point.alone(y)).add_(x)


@dataclass
class Block:
    """Snake, transposed convolution with kernel = 2·stride, three residual units.

    y[t·s + j] = W[j]·x[t] + W[j + s]·x[t − 1]: a causal convolution with two taps and s·C outputs, then a reshape.
    """

    snake: Snake
    expand: CausalConv
    stride: int
    units: list[Residual]

    def __call__(self, x: Tensor, step: Step) -> Tensor:
        y = snaked(self.snake, self.expand, x, step)
        y = y.reshape(y.shape[0], y.shape[1] * self.stride, -1)
        for unit in self.units:
            y = unit(y, step)
        return y


def layer_norm(weight: Tensor, bias: Tensor, eps: float) -> Callable[[Tensor], Tensor]:
    def apply(x: Tensor) -> Tensor:
        return F.layer_norm(x, weight.shape, weight, bias, eps)

    return apply
