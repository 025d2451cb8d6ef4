"""Reference audio → speaker vector: the ECAPA-TDNN of a Base checkpoint, over the log-mel of the whole waveform.

Source: model document 7.3; its weights lie beside the talker's. Float32 on the CPU. Every convolution keeps the length,
with reflected edges.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from services.codec.model.checkpoint import Tensors
from services.codec.model.config import CodecConfig
from services.codec.model.mel import log_mel

UNSTATED: Mapping[str, Any] = {
    "mel_dim": 128,
    "enc_channels": [512, 512, 512, 512, 1536],
    "enc_kernel_sizes": [5, 3, 3, 3, 1],
    "enc_dilations": [1, 2, 3, 4, 1],
    "enc_attention_channels": 128,
    "enc_res2net_scale": 8,
    "enc_se_channels": 128,
}
"""What the published config.json leaves to the reference's class defaults; a config that states a field is believed."""
VARIANCE_FLOOR = 1e-12


@dataclass
class Conv:
    weight: Tensor
    bias: Tensor
    dilation: int = 1

    def __call__(self, x: Tensor) -> Tensor:
        edge = (self.weight.shape[2] - 1) * self.dilation // 2
        if edge:
            x = F.pad(x, (edge, edge), mode="reflect")
        return F.conv1d(x, self.weight, self.bias, dilation=self.dilation)


@dataclass
class Block:
    """Squeeze-excited Res2Net: chunk 0 passes, chunk j hears itself and what chunk j − 1 became."""

    narrow: Conv
    chunks: list[Conv]
    widen: Conv
    squeeze: Conv
    excite: Conv

    def __call__(self, x: Tensor) -> Tensor:
        first, *rest = F.relu(self.narrow(x)).chunk(len(self.chunks) + 1, dim=1)
        parts, before = [first], torch.zeros_like(first)
        for chunk, conv in zip(rest, self.chunks, strict=True):
            before = F.relu(conv(chunk + before))
            parts.append(before)
        y = F.relu(self.widen(torch.cat(parts, dim=1)))
        gate = torch.sigmoid(self.excite(F.relu(self.squeeze(y.mean(dim=2, keepdim=True)))))
        return y * gate + x


@dataclass
class SpeakerEncoder:
    first: Conv
    blocks: list[Block]
    join: Conv
    attend_in: Conv
    attend_out: Conv
    final: Conv

    @torch.inference_mode()
    def __call__(self, wave: Tensor) -> Tensor:
        """wave [N] float32 at 24 kHz → vector [enc_dim], not normalised."""
        x = F.relu(self.first(log_mel(wave).unsqueeze(0)))
        outputs = []
        for block in self.blocks:
            x = block(x)
            outputs.append(x)
        x = F.relu(self.join(torch.cat(outputs, dim=1)))
        mean, deviation = _statistics(x, torch.full((1, 1, x.shape[2]), 1.0 / x.shape[2]))
        context = torch.cat([x, mean.expand_as(x), deviation.expand_as(x)], dim=1)
        weights = self.attend_out(torch.tanh(F.relu(self.attend_in(context)))).softmax(dim=2)
        return self.final(torch.cat(_statistics(x, weights), dim=1))[0, :, 0]


def _statistics(x: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Weighted mean and deviation over time, [1, C, 1] each."""
    mean = (weights * x).sum(dim=2, keepdim=True)
    variance = (weights * (x - mean).square()).sum(dim=2, keepdim=True)
    return mean, variance.clamp(min=VARIANCE_FLOOR).sqrt()


def load_speaker_encoder(config: CodecConfig) -> SpeakerEncoder | None:
    """From the checkpoint around the speech tokenizer; None when it is not a Base one, or there is none."""
    directory = config.directory.parent
    section = _section(directory / "config.json")
    if section is None:
        return None
    tensors = Tensors(directory, "speaker_encoder.")
    encoder = _build({**UNSTATED, **section}, tensors)
    tensors.finish()
    return encoder


def _section(path: Path) -> Mapping[str, Any] | None:
    if not path.is_file():
        return None
    section: Mapping[str, Any] | None = json.loads(path.read_text()).get("speaker_encoder_config")
    return section


def _build(c: Mapping[str, Any], tensors: Tensors) -> SpeakerEncoder:
    channels, kernels, dilations = c["enc_channels"], c["enc_kernel_sizes"], c["enc_dilations"]
    scale, squeezed, attention = c["enc_res2net_scale"], c["enc_se_channels"], c["enc_attention_channels"]

    def conv(name: str, into: int, out: int, kernel: int = 1, dilation: int = 1) -> Conv:
        weight = tensors.take(f"speaker_encoder.{name}.weight", out, into, kernel).to(torch.float32)
        return Conv(weight, tensors.take(f"speaker_encoder.{name}.bias", out).to(torch.float32), dilation)

    def block(i: int) -> Block:
        name, width, part = f"blocks.{i}", channels[i], channels[i] // scale
        chunks = [
            conv(f"{name}.res2net_block.blocks.{j}.conv", part, part, kernels[i], dilations[i])
            for j in range(scale - 1)
        ]
        return Block(
            narrow=conv(f"{name}.tdnn1.conv", channels[i - 1], width),
            chunks=chunks,
            widen=conv(f"{name}.tdnn2.conv", width, width),
            squeeze=conv(f"{name}.se_block.conv1", width, squeezed),
            excite=conv(f"{name}.se_block.conv2", squeezed, width),
        )

    last = channels[-1]
    return SpeakerEncoder(
        first=conv("blocks.0.conv", c["mel_dim"], channels[0], kernels[0], dilations[0]),
        blocks=[block(i) for i in range(1, len(channels) - 1)],
        join=conv("mfa.conv", sum(channels[1:-1]), last, kernels[-1], dilations[-1]),
        attend_in=conv("asp.tdnn.conv", 3 * last, attention),
        attend_out=conv("asp.conv", attention, last),
        final=conv("fc", 2 * last, c["enc_dim"]),
    )
