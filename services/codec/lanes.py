"""Where steps run: a lane is a stream with its own graphs and its own memory to hand codes in and samples out.

On a GPU there are two. Steps of one lane run in order, those of different lanes at the same time, and the device gives
what one of them leaves idle to the other; what the urgent lane asks for goes first. Graphs of one lane share a pool, so
a lane has one step in flight at most. Who touches which row of the state last is kept in `RowOrder`, so that a row
handed from one lane to the other is never read before it was written. On a CPU there is one lane and it never waits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from common.graphs import Bucket, Buffers, GraphedStep
from services.codec.schedule import Row
from services.codec.sound import Samples


@dataclass
class StepBatch(Buffers):
    """One step's static inputs: codes [B, T, Q] int64, active [B] int64, fresh [B] bool."""

    codes: Tensor
    active: Tensor
    fresh: Tensor


class Launched(Protocol):
    """A step that has been handed to the device."""

    def ready(self) -> bool:
        """Whether `samples` would return at once."""

    def samples(self) -> list[Samples]:
        """Wait for the step: float32 samples in [−1, 1], one array per row. Once, before the lane's next step."""


class RowOrder:
    """The last event of each row of the state, and whose it is. On one lane order is the stream's own."""

    def __init__(self) -> None:
        self._last: dict[int, tuple[Lane, Any]] = {}

    def before(self, rows: Sequence[int], lane: Lane) -> list[Any]:
        """What `lane` has to wait for before it may touch these rows: events of other lanes, each once."""
        last = (self._last[row] for row in rows if row in self._last)
        return list(dict.fromkeys(event for owner, event in last if owner is not lane))

    def touched(self, rows: Sequence[int], lane: Lane, event: Any) -> None:
        self._last.update(dict.fromkeys(rows, (lane, event)))


class Lane:
    """`step` is run for the shapes `shapes`; rows that pad a batch are row `padding_row` of the state, this lane's own.

    `urgent`: the device starts what it asks for before what others ask for.
    """

    def __init__(
        self,
        step: Callable[[StepBatch], Tensor],
        shapes: Sequence[Bucket],
        *,
        codebook_count: int,
        padding_row: int,
        samples_per_frame: int,
        device: torch.device,
        order: RowOrder,
        urgent: bool = False,
        eager: bool = False,
    ) -> None:
        self._codebooks, self._padding_row, self._device, self._order = codebook_count, padding_row, device, order
        on_gpu = device.type == "cuda"
        self.stream = _stream(device, urgent) if on_gpu else None
        self.graphs = GraphedStep(step, self._allocate, shapes, device, eager=eager, stream=self.stream)
        rows, most = max(b for b, _ in shapes), max(b * t for b, t in shapes)
        self._codes = torch.zeros(most * codebook_count, dtype=torch.int64, pin_memory=on_gpu)
        self._active = torch.zeros(rows, dtype=torch.int64, pin_memory=on_gpu)
        self._fresh = torch.zeros(rows, dtype=torch.bool, pin_memory=on_gpu)
        self._heard = torch.zeros(most * samples_per_frame if on_gpu else 0, pin_memory=on_gpu)

    def warm(self) -> None:
        """Run every shape, on a GPU capture it; afterwards nothing is captured any more."""
        with self._entered():
            self.graphs.capture()
        assert self.graphs.captured, "every shape is captured before the first step"

    def launch(self, bucket: Bucket, rows: Sequence[Row]) -> Launched:
        """Hand a step to the device: `rows` with equally many frames, at most `bucket[0]` of them."""
        batch, slots = self._staged(bucket, rows), [row.slot for row in rows]
        with self._entered():
            if self.stream is None:
                return _Done(list(self.graphs(bucket, batch)[: len(rows)].numpy()))
            for event in self._order.before(slots, self):
                self.stream.wait_event(event)
            samples = self.graphs(bucket, batch)[: len(rows)]
            heard = self._heard[: samples.numel()].view(samples.shape)
            heard.copy_(samples, non_blocking=True)
            event = self._recorded()
        self._order.touched(slots, self, event)
        return _InFlight(heard, event)

    def run(self, work: Callable[[], None], rows: Sequence[int]) -> None:
        """Other work on these rows of the state, in this lane's order."""
        with self._entered():
            if self.stream is None:
                work()
                return
            for event in self._order.before(rows, self):
                self.stream.wait_event(event)
            work()
            self._order.touched(rows, self, self._recorded())

    def _staged(self, bucket: Bucket, rows: Sequence[Row]) -> StepBatch:
        """The rows where the device can fetch them. Free to fill anew: the step before has been waited for."""
        count, (size, frames) = len(rows), bucket
        codes = self._codes[: size * frames * self._codebooks].view(size, frames, self._codebooks)
        active, fresh = self._active[:size], self._fresh[:size]
        codes.numpy()[:count] = [row.codes for row in rows]
        codes[count:] = 0
        active.numpy()[:count] = [row.slot for row in rows]
        active[count:] = self._padding_row
        fresh.numpy()[:count] = [row.fresh for row in rows]
        fresh[count:] = True
        return StepBatch(codes, active, fresh)

    def _allocate(self, bucket: Bucket) -> StepBatch:
        rows, frames = bucket
        return StepBatch(
            codes=torch.zeros((rows, frames, self._codebooks), dtype=torch.int64, device=self._device),
            active=torch.full((rows,), self._padding_row, device=self._device),
            fresh=torch.ones(rows, dtype=torch.bool, device=self._device),
        )

    @contextmanager
    def _entered(self) -> Iterator[None]:
        if self.stream is None:
            yield
            return
        with torch.cuda.stream(self.stream):
            yield

    def _recorded(self) -> Any:
        event = torch.cuda.Event()  # type: ignore[no-untyped-call]
        event.record(self.stream)
        return event


@dataclass(frozen=True)
class _Done:
    heard: list[Samples]

    def ready(self) -> bool:
        return True

    def samples(self) -> list[Samples]:
        return self.heard


@dataclass(frozen=True)
class _InFlight:
    """`heard` [B, N] is the lane's own memory: copied out, so that the lane may go on."""

    heard: Tensor
    event: Any

    def ready(self) -> bool:
        return bool(self.event.query())

    def samples(self) -> list[Samples]:
        self.event.synchronize()
        return list(self.heard.numpy().copy())


def _stream(device: torch.device, urgent: bool) -> Any:
    """Graph nodes keep the priority of the stream that they were captured on."""
    least, greatest = torch.cuda.Stream.priority_range()  # type: ignore[call-arg]
    return torch.cuda.Stream(device, priority=greatest if urgent else least)  # type: ignore[no-untyped-call]
