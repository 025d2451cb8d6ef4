from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from common.graphs import Bucket, Buffers, GraphedStep

RESERVED = 8


@dataclass
class Batch(Buffers):
    """Slots [B] int64 and what each adds [B, T] float32."""

    slots: Tensor
    added: Tensor


class Sums:
    """A step with state: each slot keeps a running sum and answers it. The last row is for padding."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.totals = torch.zeros(RESERVED + 1, device=device)
        self.shapes_seen: list[tuple[int, ...]] = []

    def step(self, batch: Batch) -> Tensor:
        self.shapes_seen.append(tuple(batch.added.shape))
        self.totals.index_add_(0, batch.slots, batch.added.sum(dim=1))
        return self.totals[batch.slots]

    def allocate(self, bucket: Bucket) -> Batch:
        rows, steps = bucket
        slots = torch.full((rows,), RESERVED, device=self.device)
        return Batch(slots, torch.zeros(rows, steps, device=self.device))

    def batch(self, slots: list[int], value: float, steps: int = 1) -> Batch:
        index = torch.tensor(slots, device=self.device)
        return Batch(index, torch.full((len(slots), steps), value, device=self.device))


def opened(device: str = "cpu", *, eager: bool = False) -> tuple[Sums, GraphedStep[Batch, Tensor]]:
    sums = Sums(torch.device(device))
    graphed = GraphedStep(sums.step, sums.allocate, [(1, 1), (4, 1), (2, 1), (4, 2)], sums.device, eager=eager)
    return sums, graphed


def test_the_largest_bucket_is_captured_first() -> None:
    sums, graphed = opened()
    graphed.capture()
    assert sums.shapes_seen == [(4, 2), (4, 1), (2, 1), (1, 1)]
    assert graphed.captured


def test_capturing_touches_no_slot_but_the_reserved_one() -> None:
    sums, graphed = opened()
    before = sums.totals.clone()
    graphed.capture()
    assert torch.equal(sums.totals[:RESERVED], before[:RESERVED])


def test_the_smallest_bucket_with_room_is_chosen() -> None:
    _, graphed = opened()
    assert graphed.bucket_for((1, 1)) == (1, 1)
    assert graphed.bucket_for((3, 1)) == (4, 1)
    assert graphed.bucket_for((1, 2)) == (4, 2)
    with pytest.raises(ValueError, match=r"no bucket has room for \(5, 1\)"):
        graphed.bucket_for((5, 1))


def test_steps_go_on_from_the_state_of_the_steps_before() -> None:
    sums, graphed = opened()
    graphed.capture()
    assert graphed((2, 1), sums.batch([3, 5], 1.0)).tolist() == [1.0, 1.0]
    assert graphed((1, 1), sums.batch([5], 2.0)).tolist() == [3.0]
    assert graphed((4, 2), sums.batch([3, 5, 0, 1], 1.0, steps=2)).tolist() == [3.0, 5.0, 2.0, 2.0]


def test_a_batch_of_another_shape_is_refused_by_name() -> None:
    sums, graphed = opened()
    graphed.capture()
    before = sums.totals.clone()
    with pytest.raises(ValueError, match=r"added is \[2, 2\] float32, captured was \[2, 1\] float32"):
        graphed((2, 1), sums.batch([0, 1], 1.0, steps=2))
    with pytest.raises(ValueError, match=r"slots is \[2\] int32"):
        graphed((2, 1), Batch(torch.zeros(2, dtype=torch.int32), torch.zeros(2, 1)))
    assert torch.equal(sums.totals, before)


def test_nothing_is_captured_on_the_way() -> None:
    sums, graphed = opened()
    with pytest.raises(ValueError, match="not captured"):
        graphed((1, 1), sums.batch([0], 1.0))


def test_a_step_without_buckets_cannot_be() -> None:
    sums = Sums(torch.device("cpu"))
    with pytest.raises(ValueError, match="at least one bucket"):
        GraphedStep(sums.step, sums.allocate, [], sums.device)


@pytest.mark.gpu
def test_a_graph_does_what_its_eager_twin_does() -> None:
    graph_sums, graph = opened("cuda")
    eager_sums, eager = opened("cuda", eager=True)
    graph.capture()
    eager.capture()
    calls_before = len(graph_sums.shapes_seen)
    generator = torch.Generator().manual_seed(0)
    for _ in range(50):
        bucket = graph.buckets[int(torch.randint(0, 4, (1,), generator=generator))]
        slots = torch.randperm(RESERVED, generator=generator)[: bucket[0]].tolist()
        value = float(torch.randn(1, generator=generator))
        replayed = graph(bucket, graph_sums.batch(slots, value, bucket[1]))
        run = eager(bucket, eager_sums.batch(slots, value, bucket[1]))
        assert torch.equal(replayed, run)
    assert len(graph_sums.shapes_seen) == calls_before
    assert torch.equal(graph_sums.totals[:RESERVED], eager_sums.totals[:RESERVED])
