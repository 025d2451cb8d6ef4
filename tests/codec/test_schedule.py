"""Who advances next: pure decisions over values."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from services.codec.schedule import Buckets, StepPlan, Want, plan_step
from services.codec.shelf import Shelf

CPU = Buckets((1, 2, 4), (1, 2, 4), step_frames=4, pad_rows=False)
GPU = Buckets((1, 2, 4, 8), (1, 2, 4, 8), step_frames=64, pad_rows=True)


def heard(slot: int, pending: int, served: int = 0) -> Want:
    return Want(slot, pending, False, served)


def unheard(slot: int, pending: int = 4) -> Want:
    return Want(slot, pending, True, -1)


def test_nobody_wants_and_nothing_is_planned() -> None:
    assert plan_step([], CPU) is None


def test_first_frames_go_first_and_one_at_a_time() -> None:
    wants = [heard(0, 8), unheard(1), heard(2, 8), unheard(3, 1)]
    assert plan_step(wants, GPU) == StepPlan((1, 3), 1)


def test_the_longest_unserved_sets_the_size_and_all_who_can_come_along() -> None:
    wants = [heard(0, 9, served=7), heard(1, 5, served=3), heard(2, 1, served=5), heard(3, 4, served=9)]
    assert plan_step(wants, GPU) == StepPlan((1, 0, 3), 4)


def test_who_has_least_left_to_play_goes_first_and_the_urgent_share_a_step() -> None:
    def left(slot: int, lead_s: float, pending: int = 8, served: int = 0) -> Want:
        return Want(slot, pending, False, served, lead_s)

    assert plan_step([left(0, 3.0), left(1, 1.0), left(2, 2.0)], CPU) == StepPlan((1,), 4)
    assert plan_step([left(0, 3.0), left(1, 0.1), left(2, 0.2)], CPU) == StepPlan((1, 2), 2)
    assert plan_step([left(s, 0.0, served=9 - s) for s in range(6)], CPU) == StepPlan((5, 4, 3, 2), 1)
    assert plan_step([left(0, 3.0), left(1, 0.1), left(2, 0.2)], GPU) == StepPlan((1, 2, 0), 8)


def test_a_cpu_step_is_never_padded_and_never_long() -> None:
    assert plan_step([heard(s, 1) for s in range(3)], CPU) == StepPlan((0, 1), 1)
    assert plan_step([heard(s, 9) for s in range(3)], CPU) == StepPlan((0, 1), 1)
    assert plan_step([heard(0, 9)], CPU) == StepPlan((0,), 4)
    assert set(CPU.shapes()) == {(1, 1), (1, 2), (1, 4), (2, 1), (2, 2), (4, 1)}


wants = st.lists(
    st.builds(
        Want,
        st.integers(0, 50),
        st.integers(1, 40),
        st.booleans(),
        st.integers(-1, 20),
        st.sampled_from([0.0, 0.2, 3.0]),
    ),
    min_size=1,
    max_size=20,
    unique_by=lambda w: w.slot,
)


@given(wants=wants, buckets=st.sampled_from([CPU, GPU]))
def test_every_plan_is_possible_and_somebody_moves(wants: list[Want], buckets: Buckets) -> None:
    plan = plan_step(wants, buckets)
    assert plan is not None
    pending = {w.slot: w.pending_frames for w in wants}
    assert len(set(plan.slots)) == len(plan.slots) > 0
    assert all(pending[slot] >= plan.frames for slot in plan.slots)
    assert plan.frames in buckets.frame_sizes
    assert buckets.admits(len(plan.slots), plan.frames)
    assert buckets.pad_rows or len(plan.slots) in buckets.batch_sizes


@given(wants=wants, buckets=st.sampled_from([CPU, GPU]))
def test_nobody_starves(wants: list[Want], buckets: Buckets) -> None:
    """Served in turn, everyone's frames are gone after finitely many steps, without a favourite."""
    left = {w.slot: w for w in wants}
    for step in range(100, 100 + sum(w.pending_frames for w in wants)):
        plan = plan_step(list(left.values()), buckets)
        if plan is None:
            break
        for slot in plan.slots:
            rest = left.pop(slot).pending_frames - plan.frames
            if rest:
                left[slot] = Want(slot, rest, False, step)
    assert not left


@given(st.lists(st.tuples(st.sampled_from("pfr"), st.integers(0, 9)), max_size=60), st.integers(0, 4))
def test_a_shelf_keeps_the_most_recent_and_never_shares_a_row(actions: list[tuple[str, int]], rows: int) -> None:
    shelf, order = Shelf(10, rows), list[int]()
    for action, key in actions:
        if action == "p":
            row = shelf.place(key)
            assert (row is None) == (rows == 0)
            order = [k for k in order if k != key] + [key] if rows else []
            order = order[-rows:] if rows else []
        elif action == "f":
            assert (shelf.find(key) is not None) == (key in order)
            order = [k for k in order if k != key] + [key] * (key in order)
        else:
            shelf.remove(key)
            order = [k for k in order if k != key]
        held = [shelf.find(k) for k in order]
        assert len(set(held)) == len(held)
        assert all(row is not None and 10 <= row < 10 + rows for row in held)
