"""Which sequences advance in the next step. Pure: sequences and a moment in, a plan out; no clock, no tensors.

A listener who waits for the first sound comes first, then whoever has least left to play. A sequence that is far enough
ahead sits out while others need the step, for every row makes it longer; when nobody needs it, everyone advances.

    lead   0 ──── urgent_lead_s ──────────── lead_ceiling_s ────▶
           every step │ unless somebody is │ only when nobody
                      │ still unheard      │ is below

Prompts join as they come, oldest first, as many in one pass as the row budget of a step allows, so that a long prompt
delays running speech by a bounded amount. Nobody starves: whoever sits out loses lead by the clock, and so becomes
urgent; among those that have none left, the one that was served longest ago goes first.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from services.tts_lm.prefix import Fill
from services.tts_lm.sequence import Sequence


@dataclass(frozen=True)
class Policy:
    """In seconds of sound made and not yet played, in prompt rows per step, and in sequences per step (None: all)."""

    lead_ceiling_s: float = 1.0
    urgent_lead_s: float = 0.25
    prefill_rows: int = 512
    max_batch: int | None = None


DEFAULT = Policy()


@dataclass(frozen=True)
class StepPlan:
    """Prefixes that run first; sequences whose prompt runs in this step, and sequences that read one row: each of these
    then gives one frame.
    """

    prefills: tuple[Sequence, ...] = ()
    steps: tuple[Sequence, ...] = ()
    fills: tuple[Fill, ...] = ()

    @property
    def sequences(self) -> tuple[Sequence, ...]:
        return (*self.prefills, *self.steps)

    @property
    def is_empty(self) -> bool:
        return not (self.prefills or self.steps or self.fills)


def plan_step(
    ready: Iterable[Sequence], now_s: float = 0.0, policy: Policy = DEFAULT, pending: Iterable[Fill] = ()
) -> StepPlan:
    """`ready` are the sequences that have text, credit and room, in order of arrival; `pending` are prefixes that
    somebody will need, whose text has not come.
    """
    candidates = list(ready)
    most = policy.max_batch or len(candidates)
    prefills, fills = _prompts([s for s in candidates if not s.prefilled][:most], policy.prefill_rows, pending)
    running = [(s.lead_s(now_s), s) for s in candidates if s.prefilled]
    steps = _steps(running, policy, is_anyone_unheard=bool(prefills))
    steps.sort(key=lambda each: (not each[1].unheard, each[0], each[1].served_turn))
    return StepPlan(tuple(prefills), tuple(s for _, s in steps[: most - len(prefills)]), tuple(fills))


Led = tuple[float, Sequence]


def _steps(running: list[Led], policy: Policy, *, is_anyone_unheard: bool) -> list[Led]:
    """Those of the sequences that speak already, with their leads, whose turn it is."""
    if is_anyone_unheard or any(s.unheard for _, s in running):
        return [(lead, s) for lead, s in running if s.unheard or lead < policy.urgent_lead_s]
    below = [(lead, s) for lead, s in running if lead < policy.lead_ceiling_s]
    return below or running


def _prompts(waiting: list[Sequence], row_budget: int, pending: Iterable[Fill]) -> tuple[list[Sequence], list[Fill]]:
    """Prompts, and the prefixes before them, within the budget. The first always fits, however long it is."""
    prefills: list[Sequence] = []
    fills: list[Fill] = []
    rows = 0
    for sequence in waiting:
        fill = sequence.fill if sequence.fill is not None and not sequence.fill.done else None
        is_new = fill is not None and fill not in fills
        count = sequence.next_row_count() + (len(fill.rows) if fill is not None and is_new else 0)
        if rows and rows + count > row_budget:
            continue
        rows += count
        prefills.append(sequence)
        if fill is not None and is_new:
            fills.append(fill)
    for fill in pending:
        if fill not in fills and (not rows or rows + len(fill.rows) <= row_budget):
            rows += len(fill.rows)
            fills.append(fill)
    return prefills, fills
