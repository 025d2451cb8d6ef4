"""Mel-cepstral distance after time alignment: how far two renderings of one sentence lie apart, in decibels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tools.mini_voice import features

_CEPSTRA = 13
_DB = 10 / np.log(10) * np.sqrt(2)

Cepstra = npt.NDArray[np.float64]
Costs = npt.NDArray[np.float64]


def cepstra(samples: features.Array) -> Cepstra:
    """Cepstral coefficients 1 to 13 of every 10 ms, of the log amplitude: [T, 13]."""
    bands = features.log_mel(features.frames_of(samples).ravel()).reshape(-1, features.BANDS) / 2
    place = np.arange(features.BANDS) + 0.5
    basis = np.cos(np.pi / features.BANDS * np.outer(place, np.arange(1, _CEPSTRA + 1)))
    return np.asarray(bands.astype(np.float64) @ basis * 2 / features.BANDS)


def mel_cepstral_distance(a: features.Array, b: features.Array) -> float:
    """Mean over the cheapest monotonic alignment of the two sounds, in dB; 0 for equal ones."""
    return align(costs_between(a, b)).cost


def costs_between(a: features.Array, b: features.Array) -> Costs:
    """Distance in dB of every 10 ms of `a` to every 10 ms of `b`: [M, N]."""
    left, right = cepstra(a), cepstra(b)
    squares = np.square(left).sum(1)[:, None] + np.square(right).sum(1) - 2 * left @ right.T  # a minute fits in memory
    return np.asarray(np.sqrt(squares.clip(min=0)) * _DB)


@dataclass(frozen=True)
class Alignment:
    """`path` [P, 2] from corner to corner, and the mean cost along it."""

    path: npt.NDArray[np.int64]
    cost: float


def align(costs: Costs) -> Alignment:
    """The path from corner to corner with the least sum; steps right, down or both: [M, N]."""
    rows, columns = costs.shape
    # Diagonal by diagonal: each cell of one diagonal depends on the two before it alone.
    total = np.full((rows + 1, columns + 1), np.inf)
    moves = np.zeros((rows + 1, columns + 1), np.int8)
    total[0, 0] = 0
    for diagonal in range(2, rows + columns + 1):
        i = np.arange(max(1, diagonal - columns), min(rows, diagonal - 1) + 1)
        j = diagonal - i
        before = np.stack([total[i - 1, j - 1], total[i - 1, j], total[i, j - 1]])
        moves[i, j] = before.argmin(axis=0)
        total[i, j] = before.min(axis=0) + costs[i - 1, j - 1]
    path, i, j = [], rows, columns
    while i > 0 and j > 0:
        path.append((i - 1, j - 1))
        down, right = _MOVES[moves[i, j]]
        i, j = i - down, j - right
    return Alignment(np.array(path[::-1], np.int64), float(total[rows, columns] / len(path)))


_MOVES = ((1, 1), (1, 0), (0, 1))
