"""What the barge-in bench makes of its samples; the bench itself needs a browser and minutes."""

from __future__ import annotations

import pytest

from bench.barge_in import GOALS, rank


@pytest.mark.parametrize(("share", "expected"), [(0.5, 30.0), (0.9, 54.0), (1.0, 60.0), (0.0, 1.0)])
def test_a_quantile_is_a_trial_that_was_made(share: float, expected: float) -> None:
    assert rank([float(value) for value in range(60, 0, -1)], share) == expected


def test_the_goals_are_those_of_the_promise() -> None:
    assert GOALS == {"p50": 0.15, "p90": 0.2}
