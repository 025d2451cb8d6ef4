"""How far a training is, by steps or by time, whichever is further; the learning rate that belongs there; its file.

Time counts over all runs, so a training can be given a budget on a machine that is lent for minutes, and still end with
a small learning rate.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

_LAST_PART = 0.05
_TRAINING_ONLY = "phone_reader."


@dataclass(frozen=True)
class Progress:
    """Steps done, seconds spent, and the step at which this training began."""

    step: int = 0
    spent_s: float = 0.0
    origin: int = 0


@dataclass
class Clock:
    """`steps` and `budget_s` bound the whole training, `run_s` this run; `spent_s` is the time of the runs before.

    A training that goes on from a finished voice begins at step `origin`: its rate rises and falls once more.
    """

    steps: int
    budget_s: float
    run_s: float
    warmup_steps: int
    step: int = 0
    spent_s: float = 0.0
    origin: int = 0
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
        done = (self.step - self.origin) / max(1, self.steps - self.origin)
        return min(1.0, max(done, self.total_s / self.budget_s))

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
        risen = (self.step - self.origin + 1) / self.warmup_steps
        return min(1.0, risen) * min(1.0, max(_LAST_PART, 2 * (1 - self.progress)))


def save(path: Path, net: torch.nn.Module, optimisers: Sequence[torch.optim.Optimizer], clock: Clock) -> None:
    """Everything needed to go on, or nothing."""
    state = {"net": net.state_dict(), "optimisers": [optimiser.state_dict() for optimiser in optimisers]}
    _write(path, state | {"step": clock.step, "spent_s": clock.total_s, "origin": clock.origin})


def seed(path: Path, net: Mapping[str, torch.Tensor], step: int) -> None:
    """What a training goes on from that has only the weights of a finished voice, after `step` steps."""
    _write(path, {"net": dict(net), "optimisers": [], "step": step, "spent_s": 0.0, "origin": step})


def resume(path: Path, net: torch.nn.Module, optimisers: Sequence[torch.optim.Optimizer], device: str) -> Progress:
    """Loads what `save` or `seed` wrote; without a file nothing is loaded and nothing is done.

    A voice has no weights of what training alone uses (the phoneme reader): those stay as they are.
    """
    if not path.exists():
        return Progress()
    state: dict[str, Any] = torch.load(path, map_location=device, weights_only=True)
    seeded = not state["optimisers"]
    missing, surplus = net.load_state_dict(state["net"], strict=not seeded)
    if surplus or any(not name.startswith(_TRAINING_ONLY) for name in missing):
        raise ValueError(f"{path} is of another network: surplus {surplus[:3]}, missing {missing[:3]}")
    if not seeded:
        for optimiser, saved in zip(optimisers, state["optimisers"], strict=True):
            optimiser.load_state_dict(saved)
    return Progress(int(state["step"]), float(state["spent_s"]), int(state.get("origin", 0)))


def _write(path: Path, state: dict[str, Any]) -> None:
    draft = path.with_suffix(".draft")
    torch.save(state, draft)
    draft.rename(path)
