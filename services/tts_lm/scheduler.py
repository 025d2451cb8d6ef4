"""Which sequences advance in the next step. Pure: sequences in, a plan out; no clock, no tensors.

Everyone who can advance does, one frame each; prompts join as they come, oldest first, as many as the row budget of
a step allows, so that a long prompt delays running speech by a bounded amount.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from services.tts_lm.sequence import Sequence

PREFILL_ROW_BUDGET = 512
"""Prompt rows per step. The first prompt always fits, however long it is."""


@dataclass(frozen=True)
class StepPlan:
    """Sequences whose prompt runs in this step and sequences that read one row; each then gives one frame."""

    prefills: tuple[Sequence, ...] = ()
    steps: tuple[Sequence, ...] = ()

    @property
    def sequences(self) -> tuple[Sequence, ...]:
        return (*self.prefills, *self.steps)


def plan_step(ready: Iterable[Sequence], row_budget: int = PREFILL_ROW_BUDGET) -> StepPlan:
    """`ready` are the sequences that have text and credit, in order of arrival."""
    prefills: list[Sequence] = []
    steps: list[Sequence] = []
    rows = 0
    for sequence in ready:
        if sequence.prefilled:
            steps.append(sequence)
            continue
        count = len(sequence.prompt_rows())
        if not prefills or rows + count <= row_budget:
            prefills.append(sequence)
            rows += count
    return StepPlan(tuple(prefills), tuple(steps))
