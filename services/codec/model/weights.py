"""Checkpoint names → the decoder: folding what never changes, placing every convolution in the state.

Source of names and shapes: model document 9.2. Folded in float64 and rounded once to the working dtype: codebooks with
their projections, e^α and 1/(e^β + 1e-9), layer scales and γ into the products before them.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from services.codec.model.checkpoint import Tensors
from services.codec.model.config import CodecConfig, DecoderConfig
from services.codec.model.conv import Product
from services.codec.model.decoder import (
    Block,
    Decoder,
    FusedSnake,
    Layer,
    Norm,
    Residual,
    Snake,
    Transformer,
    Upsample,
    layer_norm,
)
from services.codec.model.streaming import CausalConv, Rotary, TailPlan

DILATIONS = (1, 3, 9)
CONVNEXT_EPS = 1e-6
SNAKE_EPS = 1e-9
USAGE_EPS = 1e-5


def load_decoder(
    config: CodecConfig, *, device: torch.device, dtype: torch.dtype, fused: FusedSnake | None = None
) -> Decoder:
    """The decoder of a checkpoint on a device. Broken when a tensor is missing, misshapen or unknown."""
    tensors = Tensors(config.directory, "decoder.")
    decoder = _Builder(config.decoder, tensors, device, dtype, fused).build()
    tensors.finish()
    return decoder


def codebook(tensors: Tensors, prefix: str, sums: str, size: int, width: int) -> Tensor:
    """Entries [size, width] = sums / usage, float64."""
    usage = tensors.take(f"{prefix}.cluster_usage", size).clamp(min=USAGE_EPS)
    return tensors.take(f"{prefix}.{sums}", size, width) / usage.unsqueeze(1)


@dataclass
class _Builder:
    config: DecoderConfig
    tensors: Tensors
    device: torch.device
    dtype: torch.dtype
    fused: FusedSnake | None

    def __post_init__(self) -> None:
        self.plan = TailPlan()

    def build(self) -> Decoder:
        c = self.config
        codebooks = self.place(self.codebooks())
        pre_conv = self.causal("decoder.pre_conv.conv", c.codebook_dim, c.latent_dim, 3, flat=True)
        transformer = self.transformer()
        upsamples = [self.upsample(f"decoder.upsample.{i}", ratio) for i, ratio in enumerate(c.upsampling_ratios)]
        conv_in = self.causal("decoder.decoder.0.conv", c.latent_dim, c.decoder_dim, 7, flat=True)
        blocks, channels = [], c.decoder_dim
        for i, stride in enumerate(c.upsample_rates, start=1):
            blocks.append(self.block(f"decoder.decoder.{i}.block", channels, stride, flat=i == 1))
            channels //= 2
        last = len(c.upsample_rates) + 1
        return Decoder(
            c,
            codebooks=codebooks,
            pre_conv=pre_conv,
            transformer=transformer,
            upsamples=upsamples,
            conv_in=conv_in,
            blocks=blocks,
            snake_out=self.snake(f"decoder.decoder.{last}", channels),
            conv_out=self.causal(f"decoder.decoder.{last + 1}.conv", channels, 1, 7),
            tail_width=self.plan.width,
        )

    def place(self, tensor: Tensor) -> Tensor:
        return tensor.to(self.dtype).to(self.device).contiguous()

    def vector(self, name: str, size: int) -> Tensor:
        return self.place(self.tensors.take(name, size))

    def product(self, weight: Tensor, bias: Tensor | None, *, dilation: int = 1, flat: bool = False) -> Product:
        placed = None if bias is None else self.place(bias)
        return Product(self.place(weight), placed, dilation=dilation, flat=flat)

    def linear(self, name: str, out: int, into: int) -> Product:
        take = self.tensors.take
        return self.product(take(f"{name}.weight", out, into), take(f"{name}.bias", out))

    def causal(
        self, name: str, into: int, out: int, kernel: int, *, dilation: int = 1, flat: bool = False
    ) -> CausalConv:
        weight, bias = self.tensors.take(f"{name}.weight", out, into, kernel), self.tensors.take(f"{name}.bias", out)
        return CausalConv(self.product(weight, bias, dilation=dilation, flat=flat), into, self.plan)

    def codebooks(self) -> Tensor:
        c, take = self.config, self.tensors.take
        width = c.codebook_dim // 2
        tables = []
        for branch, count in (("rvq_first", 1), ("rvq_rest", c.num_quantizers - 1)):
            prefix = f"decoder.quantizer.{branch}"
            self.tensors.drop(f"{prefix}.input_proj.weight", width, c.codebook_dim, 1)
            project = take(f"{prefix}.output_proj.weight", c.codebook_dim, width, 1)[:, :, 0]
            for i in range(count):
                entries = codebook(
                    self.tensors, f"{prefix}.vq.layers.{i}._codebook", "embedding_sum", c.codebook_size, width
                )
                tables.append(entries @ project.T)
        return torch.cat(tables)

    def transformer(self) -> Transformer:
        c, prefix = self.config, "decoder.pre_transformer"
        return Transformer(
            project_in=self.linear(f"{prefix}.input_proj", c.hidden_size, c.latent_dim),
            layers=[self.layer(f"{prefix}.layers.{i}") for i in range(c.num_hidden_layers)],
            norm=self.norm(f"{prefix}.norm"),
            project_out=self.linear(f"{prefix}.output_proj", c.latent_dim, c.hidden_size),
            rotary=Rotary(c.head_dim, c.rope_theta, self.dtype, self.device),
            head_counts=[c.num_attention_heads, c.num_key_value_heads, c.num_key_value_heads],
            head_dim=c.head_dim,
        )

    def norm(self, name: str) -> Norm:
        return Norm(self.vector(f"{name}.weight", self.config.hidden_size), self.config.rms_norm_eps)

    def layer(self, prefix: str) -> Layer:
        c, take = self.config, self.tensors.take
        hidden, inner = c.hidden_size, c.intermediate_size
        query, key = c.num_attention_heads * c.head_dim, c.num_key_value_heads * c.head_dim
        widths = {"q": query, "k": key, "v": key}
        qkv = [take(f"{prefix}.self_attn.{n}_proj.weight", width, hidden) for n, width in widths.items()]
        gate_up = [take(f"{prefix}.mlp.{n}_proj.weight", inner, hidden) for n in ("gate", "up")]
        out = take(f"{prefix}.self_attn.o_proj.weight", hidden, query)
        down = take(f"{prefix}.mlp.down_proj.weight", hidden, inner)
        return Layer(
            attention_norm=self.norm(f"{prefix}.input_layernorm"),
            qkv=self.product(torch.cat(qkv), None),
            out=self.product(out * take(f"{prefix}.self_attn_layer_scale.scale", hidden).unsqueeze(1), None),
            mlp_norm=self.norm(f"{prefix}.post_attention_layernorm"),
            gate_up=self.product(torch.cat(gate_up), None),
            down=self.product(down * take(f"{prefix}.mlp_layer_scale.scale", hidden).unsqueeze(1), None),
        )

    def upsample(self, prefix: str, ratio: int) -> Upsample:
        take, width = self.tensors.take, self.config.latent_dim
        weight = take(f"{prefix}.0.conv.weight", width, width, ratio).permute(2, 1, 0).reshape(ratio * width, width)
        bias = take(f"{prefix}.0.conv.bias", width).repeat(ratio)
        block = f"{prefix}.1"
        gamma = take(f"{block}.gamma", width)
        narrow = take(f"{block}.pwconv2.weight", width, 4 * width) * gamma.unsqueeze(1)
        norm = (self.vector(f"{block}.norm.weight", width), self.vector(f"{block}.norm.bias", width), CONVNEXT_EPS)
        return Upsample(
            expand=self.product(weight, bias),
            ratio=ratio,
            depthwise=self.place(take(f"{block}.dwconv.conv.weight", width, 1, 7)[:, 0]),
            depthwise_bias=self.vector(f"{block}.dwconv.conv.bias", width),
            tail=self.plan.place(6, width),
            norm=layer_norm(*norm),
            widen=self.linear(f"{block}.pwconv1", 4 * width, width),
            narrow=self.product(narrow, take(f"{block}.pwconv2.bias", width) * gamma),
        )

    def snake(self, prefix: str, channels: int) -> Snake:
        take = self.tensors.take
        alpha, beta = take(f"{prefix}.alpha", channels).exp(), take(f"{prefix}.beta", channels).exp()
        return Snake(self.place(alpha), self.place(1.0 / (beta + SNAKE_EPS)), self.fused)

    def block(self, prefix: str, channels: int, stride: int, *, flat: bool) -> Block:
        take, out = self.tensors.take, channels // 2
        snake = self.snake(f"{prefix}.0", channels)
        weight = take(f"{prefix}.1.conv.weight", channels, out, 2 * stride).permute(2, 1, 0)  # [2s, out, in]
        taps = torch.stack([weight[stride:], weight[:stride]], dim=3)  # older input first: [s, out, in, 2]
        bias = take(f"{prefix}.1.conv.bias", out).repeat(stride)
        expand = CausalConv(self.product(taps.flatten(0, 1), bias, flat=flat), channels, self.plan)
        units = [self.residual(f"{prefix}.{i}", out, dilation) for i, dilation in enumerate(DILATIONS, start=2)]
        return Block(snake=snake, expand=expand, stride=stride, units=units)

    def residual(self, prefix: str, channels: int, dilation: int) -> Residual:
        take = self.tensors.take
        point = take(f"{prefix}.conv2.conv.weight", channels, channels, 1)
        return Residual(
            snake_wide=self.snake(f"{prefix}.act1", channels),
            wide=self.causal(f"{prefix}.conv1.conv", channels, channels, 7, dilation=dilation),
            snake_point=self.snake(f"{prefix}.act2", channels),
            point=self.product(point, take(f"{prefix}.conv2.conv.bias", channels)),
        )
