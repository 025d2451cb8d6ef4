"""Reference audio → codes: the Mimi-style encoder of the speech tokenizer, whole waveforms only.

Source: model document 7.1 (qwen-tts 0.1.1 over transformers 4.57.3); tests/codec/test_parity.py ties it. Attention is
full and causal, as there: the configuration's sliding window is ignored by the reference. Float32 on the CPU: an
encoding is rare, cached, and must not disturb the decoder's device.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from services.codec.model.checkpoint import Tensors
from services.codec.model.config import CodecConfig, EncoderConfig
from services.codec.model.streaming import Rotary, rotate

DOWNSAMPLE = 2
USAGE_EPS = 1e-5
Module = Callable[[Tensor], Tensor]


@dataclass
class Conv:
    """Causal: the past is padded with (kernel − stride), the end so that the last output frame is complete."""

    weight: Tensor
    bias: Tensor | None
    stride: int = 1
    mode: str = "constant"

    def __call__(self, x: Tensor) -> Tensor:
        """[1, C, L] → [1, C', ceil(L / stride)]"""
        left = self.weight.shape[2] - self.stride
        x = F.pad(x, (left, -x.shape[2] % self.stride), mode=self.mode)
        return F.conv1d(x, self.weight, self.bias, stride=self.stride)


@dataclass
class Residual:
    squeeze: Conv
    expand: Conv

    def __call__(self, x: Tensor) -> Tensor:
        return x + self.expand(F.elu(self.squeeze(F.elu(x))))


@dataclass
class Layer:
    attention_norm: Module
    qkv: Tensor
    out: Tensor
    attention_scale: Tensor
    mlp_norm: Module
    widen: Tensor
    narrow: Tensor
    mlp_scale: Tensor
    heads: list[int]
    rotary: Rotary

    def __call__(self, x: Tensor) -> Tensor:
        """x [1, T, D]"""
        positions = torch.arange(x.shape[1]).unsqueeze(0)
        cos, sin = self.rotary.angles(positions)
        heads = F.linear(self.attention_norm(x), self.qkv).view(1, x.shape[1], sum(self.heads), -1)
        q, k, v = torch.split(heads, self.heads, dim=2)
        q, k, v = rotate(q, cos, sin).transpose(1, 2), rotate(k, cos, sin).transpose(1, 2), v.transpose(1, 2)
        grouped = self.heads[0] != self.heads[1]
        attended = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=grouped)
        x = x + self.attention_scale * F.linear(attended.transpose(1, 2).flatten(2), self.out)
        return x + self.mlp_scale * F.linear(F.gelu(F.linear(self.mlp_norm(x), self.widen)), self.narrow)


@dataclass
class Quantiser:
    """One branch: its own projection of the same vectors, then residual nearest neighbours."""

    project: Tensor
    codebooks: list[Tensor]

    def __call__(self, x: Tensor) -> Tensor:
        """x [T, D] → codes [T, codebooks]"""
        residual = F.linear(x, self.project)
        codes = []
        for entries in self.codebooks:
            nearest = torch.cdist(residual.unsqueeze(0), entries.unsqueeze(0))[0].argmin(dim=1)
            residual = residual - F.embedding(nearest, entries)
            codes.append(nearest)
        return torch.stack(codes, dim=1)


@dataclass
class Encoder:
    convolutions: list[Module]
    layers: list[Layer]
    downsample: Conv
    quantisers: list[Quantiser]

    @torch.inference_mode()
    def __call__(self, wave: Tensor) -> Tensor:
        """wave [N] float32 at the codec's rate → codes [ceil(N / 1920), Q] int64."""
        x = wave.view(1, 1, -1)
        for convolution in self.convolutions:
            x = convolution(x)
        x = x.transpose(1, 2)
        for layer in self.layers:
            x = layer(x)
        x = self.downsample(x.transpose(1, 2))[0].T
        return torch.cat([quantiser(x) for quantiser in self.quantisers], dim=1)


def load_encoder(config: CodecConfig) -> Encoder | None:
    """None for a checkpoint without an encoder. Broken when a tensor of it is missing, misshapen or unknown."""
    tensors = Tensors(config.directory, "encoder.")
    if config.encoder is None or not tensors:
        return None
    encoder = _Builder(config.encoder, config.encoder_quantizers, tensors).build()
    tensors.finish()
    return encoder


@dataclass
class _Builder:
    config: EncoderConfig
    used_codebooks: int
    tensors: Tensors

    def build(self) -> Encoder:
        c = self.config
        semantic = self.quantiser("semantic", c.num_semantic_quantizers, c.num_semantic_quantizers)
        acoustic = self.quantiser(
            "acoustic", c.num_quantizers - c.num_semantic_quantizers, self.used_codebooks - c.num_semantic_quantizers
        )
        weight = self.take("encoder.downsample.conv.weight", c.hidden_size, c.hidden_size, 2 * DOWNSAMPLE)
        return Encoder(
            convolutions=self.convolutions(),
            layers=[self.layer(f"encoder.encoder_transformer.layers.{i}") for i in range(c.num_hidden_layers)],
            downsample=Conv(weight, None, DOWNSAMPLE, "replicate"),
            quantisers=[semantic, acoustic],
        )

    def take(self, name: str, *shape: int) -> Tensor:
        return self.tensors.take(name, *shape).to(torch.float32)

    def conv(self, name: str, into: int, out: int, kernel: int, stride: int = 1) -> Conv:
        return Conv(self.take(f"{name}.weight", out, into, kernel), self.take(f"{name}.bias", out), stride)

    def convolutions(self) -> list[Module]:
        """In the checkpoint's numbering an activation is a layer too: 0 conv, 1 unit, 2 ELU, 3 conv, …, ELU, conv."""
        c, prefix = self.config, "encoder.encoder.layers"
        filters, index = c.num_filters, 0
        modules: list[Module] = [self.conv(f"{prefix}.0.conv", 1, filters, c.kernel_size)]
        for ratio in reversed(c.upsampling_ratios):
            block, squeezed = f"{prefix}.{index + 1}.block", filters // c.compress
            squeeze = self.conv(f"{block}.1.conv", filters, squeezed, c.residual_kernel_size)
            modules += [Residual(squeeze, self.conv(f"{block}.3.conv", squeezed, filters, 1)), F.elu]
            modules.append(self.conv(f"{prefix}.{index + 3}.conv", filters, 2 * filters, 2 * ratio, ratio))
            filters, index = 2 * filters, index + 3
        modules += [F.elu, self.conv(f"{prefix}.{index + 2}.conv", filters, c.hidden_size, c.last_kernel_size)]
        return modules

    def norm(self, name: str) -> Module:
        width, eps = self.config.hidden_size, self.config.norm_eps
        weight, bias = self.take(f"{name}.weight", width), self.take(f"{name}.bias", width)
        return lambda x: F.layer_norm(x, (width,), weight, bias, eps)

    def layer(self, prefix: str) -> Layer:
        c = self.config
        query, key = c.num_attention_heads * c.head_dim, c.num_key_value_heads * c.head_dim
        widths = {"q": query, "k": key, "v": key}
        qkv = [self.take(f"{prefix}.self_attn.{n}_proj.weight", w, c.hidden_size) for n, w in widths.items()]
        return Layer(
            attention_norm=self.norm(f"{prefix}.input_layernorm"),
            qkv=torch.cat(qkv),
            out=self.take(f"{prefix}.self_attn.o_proj.weight", c.hidden_size, query),
            attention_scale=self.take(f"{prefix}.self_attn_layer_scale.scale", c.hidden_size),
            mlp_norm=self.norm(f"{prefix}.post_attention_layernorm"),
            widen=self.take(f"{prefix}.mlp.fc1.weight", c.intermediate_size, c.hidden_size),
            narrow=self.take(f"{prefix}.mlp.fc2.weight", c.hidden_size, c.intermediate_size),
            mlp_scale=self.take(f"{prefix}.mlp_layer_scale.scale", c.hidden_size),
            heads=[c.num_attention_heads, c.num_key_value_heads, c.num_key_value_heads],
            rotary=Rotary(c.head_dim, c.rope_theta, torch.float32, torch.device("cpu")),
        )

    def quantiser(self, branch: str, count: int, used: int) -> Quantiser:
        c, prefix = self.config, f"encoder.quantizer.{branch}_residual_vector_quantizer"
        inner = c.vector_quantization_hidden_dimension
        self.tensors.drop(f"{prefix}.output_proj.weight", c.hidden_size, inner, 1)
        codebooks = [self.entries(f"{prefix}.layers.{i}.codebook") for i in range(count)]
        return Quantiser(self.take(f"{prefix}.input_proj.weight", inner, c.hidden_size, 1)[:, :, 0], codebooks[:used])

    def entries(self, prefix: str) -> Tensor:
        """Divided in float32, as the reference does: a rounding could choose another code."""
        c = self.config
        self.tensors.drop(f"{prefix}.initialized", 1)
        usage = self.take(f"{prefix}.cluster_usage", c.codebook_size).clamp(min=USAGE_EPS)
        return self.take(f"{prefix}.embed_sum", c.codebook_size, c.codebook_dim) / usage.unsqueeze(1)
