"""Who advances in the next step, and by how many frames: values in, values out, no clock, no tensors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

URGENT_LEAD_S = 0.25


@dataclass(frozen=True, slots=True)
class Want:
    """One slot that has frames waiting. `unheard`: its next frame is the first anyone will hear of it. `lead_s`: sound
    that its listener has and has not played yet."""

    slot: int
    pending_frames: int
    unheard: bool
    last_served_step: int
    lead_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Row:
    """One slot's part of a step: `codes` [T][Q]; `fresh` starts it from nothing."""

    slot: int
    fresh: bool
    codes: Sequence[Sequence[int]]


@dataclass(frozen=True, slots=True)
class StepPlan:
    slots: tuple[int, ...]
    frames: int


@dataclass(frozen=True, slots=True)
class Buckets:
    """The shapes a step may have, ascending, each starting at 1. `pad_rows`: a batch may be padded up to its bucket
    (captured graphs); otherwise it is cut down to one. A step holds at most `step_frames` rows × frames."""

    batch_sizes: tuple[int, ...]
    frame_sizes: tuple[int, ...]
    step_frames: int
    pad_rows: bool

    def shapes(self) -> list[tuple[int, int]]:
        """Every (batch, frames) a step can have."""
        return [(b, t) for b in self.batch_sizes for t in self.frame_sizes if self.admits(b, t)]

    def admits(self, batch: int, frames: int) -> bool:
        return batch == 1 or batch * frames <= self.step_frames


def plan_step(wants: Sequence[Want], buckets: Buckets) -> StepPlan | None:
    """One step for everyone, where the device runs one at a time: first frames first, then the rest.

    Everything is planned anew after each step, so a stop, or a first frame that has just come, waits for one at most.
    """
    return plan_first(wants, buckets) or plan_rest(wants, buckets)


def plan_first(wants: Sequence[Want], buckets: Buckets) -> StepPlan | None:
    """One frame of each utterance that nobody has heard yet."""
    unheard = [w for w in wants if w.unheard]
    return _step(sorted(unheard, key=_turn), 1, buckets) if unheard else None


def plan_rest(wants: Sequence[Want], buckets: Buckets) -> StepPlan | None:
    """Of those that are heard: whoever has least left to play, with all who can go as far. Where several are about to
    run dry, as many of them as fit take fewer frames each.

    Nobody starves: lead is lost by the clock, and among those without any the one served longest ago goes first.
    """
    queue = sorted((w for w in wants if not w.unheard), key=_turn)
    if not queue:
        return None
    frames = _floor(buckets.frame_sizes, queue[0].pending_frames)
    urgent = min(sum(want.lead_s < URGENT_LEAD_S for want in queue), buckets.batch_sizes[-1])
    while urgent > 1 and frames > 1 and not buckets.admits(urgent, frames):
        frames = _floor(buckets.frame_sizes, frames - 1)
    return _step([w for w in queue if w.pending_frames >= frames], frames, buckets)


def _turn(want: Want) -> tuple[float, int, int]:
    return want.lead_s, want.last_served_step, want.slot


def _step(queue: list[Want], frames: int, buckets: Buckets) -> StepPlan:
    most = max(b for b in buckets.batch_sizes if buckets.admits(b, frames))
    count = min(len(queue), most)
    if not buckets.pad_rows:
        count = _floor(buckets.batch_sizes, count)
    return StepPlan(tuple(w.slot for w in queue[:count]), frames)


def _floor(sizes: Sequence[int], value: int) -> int:
    return max(size for size in sizes if size <= value)
