"""A step that is captured once per bucket and replayed: CUDA graphs behind one wrapper, with an eager twin.

The step is a plain function from static inputs to outputs. On CUDA it is captured for every bucket at start-up, the
largest first, all graphs in one memory pool; on the CPU, or with `eager=True`, the same function runs on the same
static inputs, so that what tests prove of the twin holds of the graph. It refuses to know models, slots and batches.

What a step must promise: no host synchronisation, no branch on a tensor's value, no shape that depends on data; state
only in tensors that were allocated before and stay where they are. What its caller must know: outputs are the graph's
own memory and are good until the next call, whichever bucket that one takes; all calls come from one thread and run on
one stream, in order.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any, Generic, Self, TypeVar

import torch
from torch import Tensor

Bucket = tuple[int, ...]
"""The sizes that a captured shape has room for, for example (rows, frames)."""

_WARM_UP_RUNS = 3


@dataclass
class Buffers:
    """Base of a step's static inputs: a dataclass whose fields are tensors, filled anew before each run."""

    def load(self, batch: Self) -> None:
        """Copy a batch in. ValueError names the field whose shape or dtype is not the captured one; nothing is copied
        then."""
        pairs = [(field.name, getattr(self, field.name), getattr(batch, field.name)) for field in fields(self)]
        for name, static, given in pairs:
            if static.shape != given.shape or static.dtype != given.dtype:
                raise ValueError(f"{name} is {_described(given)}, captured was {_described(static)}")
        for _, static, given in pairs:
            static.copy_(given, non_blocking=True)


Inputs = TypeVar("Inputs", bound=Buffers)
Outputs = TypeVar("Outputs")


class GraphedStep(Generic[Inputs, Outputs]):
    """One step, captured per bucket.

    `allocate(bucket)` makes the static inputs of a bucket, on `device`, as padding: every row points at the reserved
    slot, for warming up and capturing run the step on them. `stream` is where everything runs (a high-priority one,
    say).
    """

    def __init__(
        self,
        step: Callable[[Inputs], Outputs],
        allocate: Callable[[Bucket], Inputs],
        buckets: Sequence[Bucket],
        device: torch.device,
        *,
        eager: bool = False,
        stream: torch.cuda.Stream | None = None,
    ) -> None:
        if not buckets:
            raise ValueError("a step needs at least one bucket")
        self.buckets = sorted(set(buckets), key=lambda bucket: (math.prod(bucket), bucket))
        self.eager = eager or device.type != "cuda"
        self._step = step
        self._allocate = allocate
        self._stream = None if self.eager else stream or torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._inputs: dict[Bucket, Inputs] = {}
        self._graphs: dict[Bucket, tuple[torch.cuda.CUDAGraph, Outputs]] = {}

    @property
    def capture_count(self) -> int:
        """How many buckets were captured, or run once where nothing is captured; it never grows after `capture`."""
        return len(self._inputs)

    @property
    def captured(self) -> bool:
        """Whether every bucket is ready; nothing is captured after that."""
        return len(self._inputs) == len(self.buckets)

    def bucket_for(self, need: Bucket) -> Bucket:
        """The smallest bucket with room for `need` in each of its sizes. ValueError when there is none."""
        for bucket in self.buckets:
            if len(bucket) == len(need) and all(room >= size for room, size in zip(bucket, need, strict=True)):
                return bucket
        raise ValueError(f"no bucket has room for {need}; the largest is {self.buckets[-1]}")

    @torch.inference_mode()
    def capture(self) -> None:
        """Warm up and capture every bucket, the largest first, so that the smaller ones find its memory in the pool.
        Once: RuntimeError at a second call."""
        if self.captured:
            raise RuntimeError("every bucket has been captured; nothing is captured on the way")
        pool = None if self.eager else torch.cuda.graph_pool_handle()
        for bucket in reversed(self.buckets):
            inputs = self._allocate(bucket)
            if not self.eager:
                self._graphs[bucket] = self._captured(inputs, pool)
            else:
                self._step(inputs)
            self._inputs[bucket] = inputs

    @torch.inference_mode()
    def __call__(self, bucket: Bucket, batch: Inputs) -> Outputs:
        """Run the step on a batch of exactly that bucket's shape. ValueError when a shape differs or nothing was
        captured."""
        inputs = self._inputs.get(bucket)
        if inputs is None:
            raise ValueError(f"bucket {bucket} was not captured; there are {self.buckets}")
        if self._stream is None:
            inputs.load(batch)
            return self._step(inputs)
        graph, outputs = self._graphs[bucket]
        caller = torch.cuda.current_stream()
        if caller == self._stream:
            inputs.load(batch)
            graph.replay()
            return outputs
        self._stream.wait_stream(caller)
        with torch.cuda.stream(self._stream):
            inputs.load(batch)
            graph.replay()
        caller.wait_stream(self._stream)
        return outputs

    def _captured(self, inputs: Inputs, pool: Any) -> tuple[torch.cuda.CUDAGraph, Outputs]:
        assert self._stream is not None, "captures need a stream"
        self._stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._stream):
            for _ in range(_WARM_UP_RUNS):  # lazy initialisation and autotuning must not fall into the capture
                self._step(inputs)
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        # Other threads may use the device meanwhile: only what this thread does counts.
        with torch.cuda.graph(graph, pool=pool, stream=self._stream, capture_error_mode="thread_local"):
            outputs = self._step(inputs)
        return graph, outputs


def _described(tensor: Tensor) -> str:
    return f"{list(tensor.shape)} {str(tensor.dtype).removeprefix('torch.')}"
