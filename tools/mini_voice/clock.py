"""How far a training is, by steps or by time, whichever is further; the learning rate that belongs there; its file.

Time counts over all runs, so a training can be given a budget on a machine that is lent for minutes, and still end with
a small learning rate.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

_LAST_PART = 0.05


@dataclass
class Clock:
    """`steps` and `budget_s` bound the whole training, `run_s` this run; `spent_s` is the time of the runs before."""

    steps: int
    budget_s: float
    run_s: float
    warmup_steps: int
    step: int = 0
    spent_s: float = 0.0
    _begun: float = field(default_factory=time.monotonic)
    _first: int = field(init=False)

    def __post_init__(self) -> None:
        self._first = self.step

    @property
    def elapsed_s(self) -> float:
        """Seconds of this run."""
        return time.monotonic() - self._begun

    @property
    def total_s(self) -> float:
        """Seconds of all runs."""
        return self.spent_s + self.elapsed_s

    @property
    def progress(self) -> float:
        """0 at the beginning, 1 at the end."""
        return min(1.0, max(self.step / self.steps, self.total_s / self.budget_s))

    @property
    def running(self) -> bool:
        """Whether another step belongs to this run; a run takes at least one."""
        fresh = self.step == self._first
        return self.progress < 1.0 and (fresh or self.elapsed_s < self.run_s)

    @property
    def pace_s(self) -> float:
        """Seconds a step in this run."""
        return self.elapsed_s / max(1, self.step - self._first)

    def rate(self) -> float:
        """Share of the full learning rate: up during warm-up, held, then down in a line over the second half."""
        return min(1.0, (self.step + 1) / self.warmup_steps) * min(1.0, max(_LAST_PART, 2 * (1 - self.progress)))


def save(path: Path, net: torch.nn.Module, optimisers: Sequence[torch.optim.Optimizer], clock: Clock) -> None:
    """Everything needed to go on, or nothing."""
    draft = path.with_suffix(".draft")
    states = [optimiser.state_dict() for optimiser in optimisers]
    torch.save({"net": net.state_dict(), "optimisers": states, "step": clock.step, "spent_s": clock.total_s}, draft)
    draft.rename(path)


def resume(
    path: Path, net: torch.nn.Module, optimisers: Sequence[torch.optim.Optimizer], device: str
) -> tuple[int, float]:
    """Steps done and seconds spent, after loading what `save` wrote; nothing and none without it."""
    if not path.exists():
        return 0, 0.0
    state: dict[str, Any] = torch.load(path, map_location=device, weights_only=True)
    net.load_state_dict(state["net"])
    for optimiser, saved in zip(optimisers, state["optimisers"], strict=True):
        optimiser.load_state_dict(saved)
    return int(state["step"]), float(state["spent_s"])
