"""The log-mel that the speaker encoder hears. Source: model document 7.2; filters as librosa's Slaney default."""

from __future__ import annotations

import math
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor

SAMPLE_RATE_HZ = 24_000
FFT, HOP, BANDS = 1024, 256, 128
FMIN_HZ, FMAX_HZ = 0.0, 12_000.0
LINEAR_HZ_PER_MEL, LOG_FROM_HZ, LOG_STEP = 200.0 / 3, 1000.0, math.log(6.4) / 27
"""Slaney's scale: linear below 1 kHz, then 27 mels for each factor of 6.4."""


def log_mel(wave: Tensor) -> Tensor:
    """wave [N] float32 at 24 kHz, N > 384 → [128, frames]: log of band magnitudes, floored at 1e-5."""
    edge = (FFT - HOP) // 2
    padded = F.pad(wave.view(1, 1, -1), (edge, edge), mode="reflect")[0]
    spectrum = torch.stft(padded, FFT, HOP, FFT, torch.hann_window(FFT), center=False, return_complex=True)[0]
    magnitude = torch.sqrt(spectrum.real.square() + spectrum.imag.square() + 1e-9)
    return (mel_filters() @ magnitude).clamp(min=1e-5).log()


@cache
def mel_filters() -> Tensor:
    """[128, 513] float32: triangles between neighbouring mel points, each of unit area."""
    bins = torch.linspace(0, SAMPLE_RATE_HZ / 2, FFT // 2 + 1, dtype=torch.float64)
    points = _hz(torch.linspace(_mel(FMIN_HZ), _mel(FMAX_HZ), BANDS + 2, dtype=torch.float64))
    widths = points.diff()
    distance = points.unsqueeze(1) - bins.unsqueeze(0)
    rising, falling = -distance[:-2] / widths[:-1].unsqueeze(1), distance[2:] / widths[1:].unsqueeze(1)
    triangles = torch.minimum(rising, falling).clamp(min=0)
    return (triangles * (2.0 / (points[2:] - points[:-2])).unsqueeze(1)).to(torch.float32)


def _mel(hz: float) -> float:
    if hz < LOG_FROM_HZ:
        return hz / LINEAR_HZ_PER_MEL
    return LOG_FROM_HZ / LINEAR_HZ_PER_MEL + math.log(hz / LOG_FROM_HZ) / LOG_STEP


def _hz(mels: Tensor) -> Tensor:
    knee = LOG_FROM_HZ / LINEAR_HZ_PER_MEL
    return torch.where(mels < knee, mels * LINEAR_HZ_PER_MEL, LOG_FROM_HZ * torch.exp(LOG_STEP * (mels - knee)))
