"""Mel-cepstral distance after time alignment: how far two renderings of one sentence lie apart, in decibels."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from tools.mini_voice import features

_CEPSTRA = 13
_DB = 10 / np.log(10) * np.sqrt(2)

Cepstra = npt.NDArray[np.float64]


def cepstra(samples: features.Array) -> Cepstra:
    """Cepstral coefficients 1 to 13 of every 10 ms, of the log amplitude: [T, 13]."""
    bands = features.log_mel(features.frames_of(samples).ravel()).reshape(-1, features.BANDS) / 2
    place = np.arange(features.BANDS) + 0.5
    basis = np.cos(np.pi / features.BANDS * np.outer(place, np.arange(1, _CEPSTRA + 1)))
    return np.asarray(bands.astype(np.float64) @ basis * 2 / features.BANDS)


def mel_cepstral_distance(a: features.Array, b: features.Array) -> float:
    """Mean over the cheapest monotonic alignment of the two sounds, in dB; 0 for equal ones."""
    costs = np.sqrt(np.square(cepstra(a)[:, None] - cepstra(b)[None]).sum(-1)) * _DB
    return alignment_cost(costs)


def alignment_cost(costs: npt.NDArray[np.float64]) -> float:
    """Mean cost along the path from corner to corner with the least sum; steps right, down or both: [M, N]."""
    rows, columns = costs.shape
    # Diagonal by diagonal: each cell of one diagonal depends on the two before it alone.
    total = np.full((rows + 1, columns + 1), np.inf)
    length = np.zeros((rows + 1, columns + 1))
    total[0, 0] = 0
    for diagonal in range(2, rows + columns + 1):
        i = np.arange(max(1, diagonal - columns), min(rows, diagonal - 1) + 1)
        j = diagonal - i
        before = np.stack([total[i - 1, j - 1], total[i - 1, j], total[i, j - 1]])
        best = before.argmin(axis=0)
        lengths = np.stack([length[i - 1, j - 1], length[i - 1, j], length[i, j - 1]])
        pick = np.arange(len(i))
        total[i, j] = before[best, pick] + costs[i - 1, j - 1]
        length[i, j] = lengths[best, pick] + 1
    return float(total[rows, columns] / length[rows, columns])
