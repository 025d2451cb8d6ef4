"""Calls over bad networks, in real time: nothing overlaps, repeats, bursts or falls behind, whatever gets lost."""

from __future__ import annotations

import asyncio
import time
from itertools import pairwise

import numpy as np

from services.gateway.media.webrtc import MediaSettings
from tests.gateway.media.people import Arrival, Call, call, house, until
from tests.impairment.path import Impairment

BAD = Impairment(delay_s=0.05, jitter_s=0.1, loss=0.05, reorder=0.05, duplicate=0.05)
TONE = (8000 * np.sin(2 * np.pi * 500 * np.arange(24000 * 60) / 24000)).astype(np.int16)
RTP_BLOCK = 960


def heard_s(one: Call) -> float:
    """Sound that the conversation was given."""
    return sum(samples.size for _, _, samples in one.talk.heard) / 16000


def said_s(one: Call) -> float:
    """Time since the first block that the person said: slots that a busy machine skipped are silence."""
    return time.monotonic() - one.person.said[0]


def behind_s(one: Call) -> float:
    """How much less was heard than said: the delay of the whole way."""
    return said_s(one) - heard_s(one)


async def test_a_bad_uplink_is_heard_whole_in_order_and_in_time() -> None:
    async with house() as at, call(at, up=BAD, seed=11) as one:
        one.person.speech = lambda number: TONE[number * 480 : number * 480 + 480]
        await until(lambda: heard_s(one) > 1.0)
        early_s = behind_s(one)
        await until(lambda: heard_s(one) > 4.0)
        await until(lambda: behind_s(one) < early_s + 0.1)  # it does not grow
        counts = one.peer.stats.received
        assert one.relay is not None
        assert one.relay.up.fate.lost > 3
        assert one.relay.up.fate.duplicated > 1
        assert counts.recovered + counts.concealed + counts.silenced >= 3
        assert heard_s(one) < said_s(one)  # nothing twice
        tone = one.talk.sound[16000:].astype(float)
        windows = tone[: tone.size // 320 * 320].reshape(-1, 320)
        assert np.median(np.sqrt(np.mean(windows**2, axis=1))) > 3000


async def test_a_bad_downlink_brings_no_packet_twice_or_out_of_its_time() -> None:
    async with house() as at, call(at, down=BAD, seed=12) as one:
        one.talk.playout.enqueue(1, 0, TONE[: 24000 * 10])
        await until(lambda: len(one.person.arrivals) > 150)
        payloads: dict[int, set[bytes]] = {}
        for arrival in one.person.arrivals:
            payloads.setdefault(arrival.timestamp, set()).add(arrival.payload)
        assert all(len(each) == 1 for each in payloads.values())
        in_order(one.person.arrivals)


def in_order(arrivals: list[Arrival]) -> None:
    """By sequence: time rises by whole slots, at least one from packet to packet."""
    first = arrivals[0].sequence
    ordered = {((one.sequence - first + 0x8000) & 0xFFFF) - 0x8000: one for one in arrivals}
    for (before, earlier), (after, later) in pairwise(sorted(ordered.items())):
        ticks = (later.timestamp - earlier.timestamp) & 0xFFFFFFFF
        assert ticks % RTP_BLOCK == 0
        assert ticks >= RTP_BLOCK * (after - before)


async def test_an_outage_of_two_seconds_leaves_no_delay() -> None:
    patient = MediaSettings(lost_s=60)
    async with house(patient) as at, call(at, up=Impairment()) as one:
        one.person.speech = lambda number: TONE[:480]
        await until(lambda: heard_s(one) > 0.4)
        assert one.relay is not None
        one.relay.blocked = True
        await asyncio.sleep(2.0)
        one.relay.blocked = False
        await until(lambda: heard_s(one) > 2.6)
        await until(lambda: behind_s(one) < 0.3)
        assert max(samples.size for _, _, samples in one.talk.heard) > 1.5 * 16000  # silence of its length
        await until(lambda: np.abs(one.talk.sound[-3200:].astype(int)).max() > 3000)
        assert not one.talk.suspended


async def test_after_an_outage_on_the_way_out_nothing_of_it_comes_late_or_at_once() -> None:
    patient = MediaSettings(lost_s=60)
    async with house(patient) as at, call(at, down=Impairment()) as one:
        one.talk.playout.enqueue(1, 0, TONE[: 24000 * 8])
        await until(lambda: len(one.person.arrivals) > 25)
        assert one.relay is not None
        one.relay.blocked = True
        await asyncio.sleep(2.0)
        before = len(one.person.arrivals)
        one.relay.blocked = False
        await until(lambda: len(one.person.arrivals) > before + 50)
        in_order(one.person.arrivals)
        last, first = one.person.arrivals[before - 1], one.person.arrivals[before]
        missed = ((first.timestamp - last.timestamp) & 0xFFFFFFFF) / 48000
        assert missed > 1.5  # media time went on: nothing is made up for
        times = [one.at_s for one in one.person.arrivals[before:]]
        assert times[-1] - times[0] > 0.02 * (len(times) - 1) * 0.8
        assert one.talk.playout.sent(1) > 24000 * 2


async def test_a_network_that_stalls_loses_nothing_and_catches_up() -> None:
    async with house() as at, call(at, up=Impairment(stalls=((1.0, 1.6),), in_order=True)) as one:
        await until(lambda: heard_s(one) > 2.2)
        counts = one.peer.stats.received
        assert counts.concealed + counts.silenced + counts.recovered + counts.late == 0
        await until(lambda: behind_s(one) < 0.3)


async def test_a_loop_that_stalls_neither_bursts_nor_loses_what_was_to_be_said() -> None:
    async with house() as at, call(at) as one:
        speech = TONE[: 24000 * 2]
        one.talk.playout.enqueue(1, 0, speech)
        one.talk.playout.end(1)
        await until(lambda: one.talk.playout.sent(1) > 12000)
        before = one.talk.playout.sent(1)
        time.sleep(0.6)  # noqa: ASYNC251 - the very thing
        assert one.talk.playout.sent(1) - before <= 5 * 480  # the playout waited with it
        await until(lambda: one.talk.playout.sent(1) == speech.size)
        last = len(one.talk.blocks)
        await until(lambda: len(one.person.arrivals) >= last)
        in_order(one.person.arrivals)
        skips = [
            ((later.timestamp - earlier.timestamp) & 0xFFFFFFFF) // RTP_BLOCK
            for earlier, later in pairwise(one.person.arrivals)
        ]
        assert max(skips) >= 20  # media time went on
        offsets = [block.first_sample_offset for block in one.talk.blocks if block.is_speech]
        assert offsets == list(range(0, speech.size, 480))
        assert one.peer.stats.skipped_slots >= 20
