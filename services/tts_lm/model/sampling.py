"""From logits to codes, exactly as the reference orders it, with our own counter-based draws.

Pure functions of tensors, without host synchronisation; `Filter` says on the host which filters any row of the batch
needs, so that nothing is sorted for rows that ask for nothing. Source: model document section 5.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

NEVER = float("-inf")


@dataclass(frozen=True)
class RowSampling:
    """How each row is drawn; all [S]. `top_k` 0 and `top_p` 1 switch a filter off."""

    greedy: Tensor  # bool
    temperature: Tensor  # float32
    top_k: Tensor  # int64
    top_p: Tensor  # float32


@dataclass(frozen=True)
class Filter:
    """What the host knows about a whole batch: `top_k` when all rows share it, else None; `top_p` if any row uses
    it.
    """

    all_greedy: bool
    any_greedy: bool
    top_k: int | None
    top_p: bool


def penalise(logits: Tensor, seen: Tensor, penalty: Tensor) -> Tensor:
    """Repetition penalty: logits [S, C], seen [S, C] bool, penalty [S]; each seen id once, by sign."""
    factor = penalty[:, None]
    return torch.where(seen, torch.where(logits < 0, logits * factor, logits / factor), logits)


def draw(logits: Tensor, uniform: Tensor, rows: RowSampling, batch: Filter) -> Tensor:
    """One id per row: logits [S, V] float32, uniform [S] float64 → [S] int64.

    Temperature, top-k keeping ties, top-p, softmax, then the first id whose cumulative probability exceeds the draw.
    """
    if batch.all_greedy:
        return logits.argmax(dim=-1)
    scores = logits / rows.temperature[:, None]
    scores = _keep_top_k(scores, rows.top_k, batch.top_k)
    if batch.top_p:
        scores = _keep_top_p(scores, rows.top_p)
    drawn = _invert(scores, uniform)
    return torch.where(rows.greedy, logits.argmax(dim=-1), drawn) if batch.any_greedy else drawn


def _keep_top_k(scores: Tensor, top_k: Tensor, shared: int | None) -> Tensor:
    size = scores.shape[-1]
    if shared is not None:
        if shared == 0 or shared >= size:
            return scores
        threshold = scores.topk(shared, dim=-1).values[:, -1:]
        return scores.masked_fill(scores < threshold, NEVER)
    ordered = scores.sort(dim=-1, descending=True).values
    threshold = ordered.gather(1, (top_k.clamp(1, size) - 1)[:, None])
    return scores.masked_fill((scores < threshold) & (top_k > 0)[:, None], NEVER)


def _keep_top_p(scores: Tensor, top_p: Tensor) -> Tensor:
    """Ascending formulation of the reference: drop the tail whose cumulative probability stays within 1 − p."""
    ordered, index = scores.sort(dim=-1)
    drop = ordered.softmax(dim=-1).cumsum(dim=-1) <= (1 - top_p)[:, None]
    drop[:, -1] = False
    drop &= (top_p < 1)[:, None]
    return scores.masked_fill(torch.zeros_like(drop).scatter(1, index, drop), NEVER)


def _invert(scores: Tensor, uniform: Tensor) -> Tensor:
    """Inverse of the cumulative distribution, in id order, in float64: a draw of 0 still lands on a possible id."""
    weights = (scores - scores.amax(dim=-1, keepdim=True)).double().exp()
    cumulative = weights.cumsum(dim=-1)
    target = uniform[:, None] * cumulative[:, -1:]
    return torch.searchsorted(cumulative, target, right=True).squeeze(1).clamp_max(scores.shape[-1] - 1)
