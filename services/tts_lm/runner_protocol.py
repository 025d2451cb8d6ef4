"""What the engine's loop needs of a device; importable without torch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from services.tts_lm.model.prompt import Frame
from services.tts_lm.scheduler import StepPlan


class Runner(Protocol):
    """Executes plans; tests use scripted ones."""

    page_count: int
    page_size: int

    def launch(self, plan: StepPlan) -> Callable[[], list[Frame]]:
        """Begin to execute; what is returned waits for one frame per sequence of the plan, prefills first, and is
        called once, before the next plan. Who computes on the caller's own thread does so there. Every sequence has
        the pages it needs, and prefixes that nobody has computed yet run before those that stand behind them.
        """
        ...
