"""How much one caller may have: the arithmetic, without a clock."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.errors import Overloaded
from services.gateway.access.limits import MAX_LEDGERS, Bucket, Ledger, Ledgers, Limits


@given(st.floats(1, 1000), st.lists(st.tuples(st.floats(0, 30), st.floats(0.1, 5000)), max_size=60))
def test_nobody_takes_more_than_a_burst_and_the_rate(per_minute: float, asked: list[tuple[float, float]]) -> None:
    bucket, now_s, taken, largest = Bucket(per_minute, 0.0), 0.0, 0.0, 0.0
    for pause_s, amount in asked:
        now_s += pause_s
        if bucket.take(amount, now_s) == 0:
            taken, largest = taken + amount, max(largest, amount)
    assert taken <= per_minute + now_s * per_minute / 60 + largest + 1e-6


@given(st.floats(1, 1000), st.lists(st.floats(0.1, 1000), min_size=1, max_size=20))
def test_who_waits_as_long_as_was_said_is_let_in(per_minute: float, amounts: list[float]) -> None:
    bucket, now_s = Bucket(per_minute, 0.0), 0.0
    for amount in amounts:
        wait_s = bucket.take(amount, now_s)
        if wait_s:
            now_s += wait_s + 1e-6
            assert bucket.take(amount, now_s) == 0


def test_a_refusal_says_when_and_takes_nothing() -> None:
    bucket = Bucket(60, 0.0)
    assert bucket.take(60, 0.0) == 0
    assert bucket.take(3, 0.0) == pytest.approx(3)
    assert bucket.take(3, 1.0) == pytest.approx(2)
    assert bucket.take(3, 3.0) == 0


def test_more_than_a_minute_of_text_is_let_in_once_and_paid_for() -> None:
    bucket = Bucket(60, 0.0)
    assert bucket.take(100, 0.0) == 0
    assert bucket.take(1, 0.0) == pytest.approx(41)


def test_sessions_are_counted_while_they_last() -> None:
    ledger = Ledger.of(Limits(max_sessions=2), 0.0)
    ledger.enter()
    ledger.enter()
    with pytest.raises(Overloaded, match="2 sessions"):
        ledger.enter()
    ledger.leave()
    ledger.enter()


def test_ledgers_are_bounded_and_keep_those_with_sessions() -> None:
    ledgers = Ledgers()
    kept = ledgers.of("kept", Limits(), 0.0)
    kept.enter()
    for i in range(MAX_LEDGERS + 10):
        ledgers.of(f"caller {i}", Limits(), 0.0)
    assert ledgers.of("kept", Limits(), 0.0) is kept
    assert len(ledgers._known) <= MAX_LEDGERS + 1


def test_new_limits_keep_the_sessions_that_run() -> None:
    ledgers = Ledgers()
    ledgers.of("ada", Limits(max_sessions=5), 0.0).enter()
    with pytest.raises(Overloaded):
        ledgers.of("ada", Limits(max_sessions=1), 0.0).enter()
