"""What the engine's loop needs of a device; importable without torch."""

from __future__ import annotations

from typing import Protocol

from services.tts_lm.model.prompt import Frame
from services.tts_lm.scheduler import StepPlan


class Runner(Protocol):
    """Executes plans; tests use scripted ones."""

    page_count: int
    page_size: int

    def execute(self, plan: StepPlan) -> list[Frame]:
        """One frame per sequence of the plan, prefills first; every sequence has the pages it needs, and prefixes that
        nobody has computed yet run before those that stand behind them.
        """
        ...
