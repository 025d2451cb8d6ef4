"""RTP time follows the clock for as long as a call lasts."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from services.gateway.media.downlink import MediaClock
from services.gateway.media.pacer import Timetable
from services.gateway.session.ports import BLOCK_S

TEN_MINUTES = 30_000


def test_ten_minutes_of_a_punctual_pacer_drift_by_nothing() -> None:
    clock, chance = MediaClock(), random.Random(1)
    slots = [clock.next(7.0 + slot * BLOCK_S + chance.random() * 0.012) for slot in range(TEN_MINUTES)]
    assert slots == [(slot, 0) for slot in range(TEN_MINUTES)]


def test_ten_minutes_with_stalls_drift_by_less_than_two_blocks() -> None:
    timetable, clock, chance = Timetable(), MediaClock(), random.Random(2)
    timetable.add(0.0)
    now_s, drifts, missed = 0.0, [], 0
    while now_s < 600:
        now_s = max(timetable.next_s or 0.0, now_s) + chance.random() * 0.003
        if chance.random() < 0.001:
            now_s += chance.choice([0.15, 0.6, 2.0])
        while timetable.pop(now_s) is not None:
            slot, lost = clock.next(now_s)
            missed += lost
            drifts.append(now_s - slot * BLOCK_S)
    assert missed > 300
    assert max(map(abs, drifts)) < 2 * BLOCK_S
    assert abs(sum(drifts[-100:]) / 100) < BLOCK_S


@given(st.lists(st.floats(0, 3), max_size=50))
def test_media_time_only_rises(pauses: list[float]) -> None:
    clock, now_s, last = MediaClock(), 0.0, -1
    for pause in pauses:
        now_s += pause
        slot, missed = clock.next(now_s)
        assert slot == last + 1 + missed
        last = slot
