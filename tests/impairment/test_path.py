"""The network's chances are seeded and do what their names say."""

from __future__ import annotations

from itertools import pairwise

import pytest

from tests.impairment.path import Impairment, Path


def sent(impairment: Impairment, count: int = 1000, seed: int = 1) -> list[list[float]]:
    path = Path(impairment, seed)
    return [path.arrivals(100, number * 0.02) for number in range(count)]


def test_a_perfect_network_delivers_at_once() -> None:
    assert sent(Impairment(), 3) == [[0.0], [0.02], [0.04]]


def test_the_same_seed_gives_the_same_network_and_another_another() -> None:
    bad = Impairment(jitter_s=0.1, loss=0.1, duplicate=0.1, reorder=0.1)
    assert sent(bad) == sent(bad)
    assert sent(bad) != sent(bad, seed=2)


def test_loss_duplicates_and_jitter_are_as_asked() -> None:
    arrivals = sent(Impairment(delay_s=0.05, jitter_s=0.1, loss=0.1, duplicate=0.05), 5000)
    assert sum(not at for at in arrivals) / 5000 == pytest.approx(0.1, abs=0.02)
    assert sum(len(at) == 2 for at in arrivals) / 5000 == pytest.approx(0.045, abs=0.015)
    delays = [at - number * 0.02 for number, ats in enumerate(arrivals) for at in ats]
    assert 0.05 <= min(delays) < 0.06
    assert 0.14 < max(delays) <= 0.15


def test_jitter_overtakes_unless_told_otherwise() -> None:
    for in_order in (False, True):
        flat = [at for ats in sent(Impairment(jitter_s=0.1, in_order=in_order)) for at in ats]
        assert (flat == sorted(flat)) is in_order


def test_some_packets_are_overtaken() -> None:
    flat = [at for ats in sent(Impairment(reorder=0.1, reorder_s=0.05)) for at in ats]
    assert 50 < sum(later < first for first, later in pairwise(flat)) < 150


def test_an_outage_loses_and_a_stall_delays() -> None:
    arrivals = sent(Impairment(outages=((1.0, 2.0),), stalls=((3.0, 3.6),)), 300)
    assert [number for number, at in enumerate(arrivals) if not at] == list(range(50, 100))
    assert arrivals[155] == [3.6]
    assert arrivals[181] == [pytest.approx(3.62)]


def test_a_narrow_path_queues_and_then_drops() -> None:
    path = Path(Impairment(bytes_per_s=1000, queue_s=0.5))
    assert path.arrivals(100, 0.0) == [pytest.approx(0.1)]
    assert path.arrivals(100, 0.0) == [pytest.approx(0.2)]
    delivered = [path.arrivals(100, 0.0) for _ in range(10)]
    assert [bool(at) for at in delivered] == [True] * 4 + [False] * 6
    assert path.fate.lost == 6


def test_what_may_not_be_lost_is_not() -> None:
    path = Path(Impairment(loss=1.0, outages=((0.0, 9.0),)))
    assert path.arrivals(100, 0.0, may_be_lost=False) == [0.0]
