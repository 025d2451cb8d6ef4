"""What can be measured in sound without knowing what was said. NumPy only; samples are mono float32 in [−1, 1]."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Samples = npt.NDArray[np.float32]
_SILENT_DB = -50.0
_WINDOW_S = 0.02
_CLIPPED = 0.999


@dataclass(frozen=True)
class Sound:
    """Durations in seconds. `joins` is the bend at frame borders over the bend anywhere: 1 where no border is heard."""

    seconds: float
    level_db: float
    lead_s: float
    tail_s: float
    longest_pause_s: float
    clipped_share: float
    joins: float


def measure(samples: Samples, sample_rate_hz: int, frame_samples: int) -> Sound:
    """All of it; a sound without samples is silent for no time."""
    levels = window_levels(samples, sample_rate_hz)
    loud = np.flatnonzero(levels > _SILENT_DB)
    if len(loud) == 0:
        return Sound(len(samples) / sample_rate_hz, _SILENT_DB, 0.0, 0.0, 0.0, 0.0, 1.0)
    gaps = np.diff(loud) - 1
    return Sound(
        seconds=len(samples) / sample_rate_hz,
        level_db=_db(samples),
        lead_s=float(loud[0] * _WINDOW_S),
        tail_s=float((len(levels) - 1 - loud[-1]) * _WINDOW_S),
        longest_pause_s=float(gaps.max(initial=0) * _WINDOW_S),
        clipped_share=float((np.abs(samples) >= _CLIPPED).mean()),
        joins=joins(samples, frame_samples),
    )


def window_levels(samples: Samples, sample_rate_hz: int) -> npt.NDArray[np.float64]:
    """RMS of each 20 ms in dB below full scale."""
    size = int(sample_rate_hz * _WINDOW_S)
    whole = samples[: len(samples) // size * size].reshape(-1, size).astype(np.float64)
    return np.asarray(10 * np.log10(np.square(whole).mean(axis=1) + 1e-12))


def joins(samples: Samples, frame_samples: int) -> float:
    """Mean squared second difference at frame borders over that of all samples; clicks at joins make it large."""
    bends = np.square(np.diff(samples.astype(np.float64), 2))
    borders = np.arange(frame_samples, len(samples) - 1, frame_samples) - 1
    if len(borders) == 0 or bends.mean() == 0:
        return 1.0
    return float(bends[borders].mean() / bends.mean())


def _db(samples: Samples) -> float:
    return float(10 * np.log10(np.square(samples.astype(np.float64)).mean() + 1e-12))
