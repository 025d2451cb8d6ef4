"""How far two rows of logits lie apart."""

from __future__ import annotations

import numpy as np


def compare_logits(right: np.ndarray, found: np.ndarray) -> tuple[float, float, float]:
    """Both [..., V] → relative error, share of equal maxima, mean divergence of the softmaxes."""
    right, found = right.astype(np.float64), found.astype(np.float64)
    spread = right - right.mean(-1, keepdims=True)
    error = float(np.sqrt(((found - right) ** 2).mean() / (spread**2).mean()))
    agreed = float((right.argmax(-1) == found.argmax(-1)).mean())
    p, q = (x - np.logaddexp.reduce(x, axis=-1, keepdims=True) for x in (right, found))
    return error, agreed, float((np.exp(p) * (p - q)).sum(-1).mean())
