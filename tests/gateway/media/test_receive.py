"""The receive path in virtual time: in order, once, early, and nothing missing, whatever the network did."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from services.gateway.media.receive import Receiver, ReceiveSettings

BLOCK_S = 0.02
BLOCK = 320


class Numbers:
    """A decoder whose sound says what it was made from: packet n gives n, its redundancy -n, a guess 0."""

    rate_hz = 16000

    def decode(self, packet: bytes) -> NDArray[np.int16]:
        if packet == b"bad":
            raise ValueError("not an Opus packet")
        return np.full(BLOCK, int(packet), np.int16)

    def recover(self, packet: bytes, count: int) -> NDArray[np.int16]:
        return np.full(count, -(int(packet) - 1), np.int16)

    def conceal(self, count: int) -> NDArray[np.int16]:
        return np.full(count, 30000, np.int16)

    def duration(self, packet: bytes) -> int:
        return BLOCK

    def has_redundancy(self, packet: bytes) -> bool:
        return packet != b"bad" and int(packet) % 2 == 0


@dataclass
class Network:
    """Delivers packets at their times and lets the receiver's timer run in between."""

    settings: ReceiveSettings = field(default_factory=ReceiveSettings)
    first: int = 65530  # so that everything crosses the wrap of the sequence number
    first_timestamp: int = 2**32 - 5000

    def __post_init__(self) -> None:
        self.heard: list[tuple[int, int, float, float]] = []  # value, samples, when, arrived
        self.now_s = 0.0
        self.receiver = Receiver(Numbers(), self._hear, self.settings)

    def _hear(self, samples: NDArray[np.int16], arrived_s: float) -> None:
        self.heard.append((int(samples[0]), samples.size, self.now_s, arrived_s))

    def run_to(self, at_s: float) -> None:
        while (due_s := self.receiver.due_s) is not None and due_s <= at_s:
            self.now_s = max(self.now_s, due_s)
            self.receiver.timer(self.now_s)
        self.now_s = at_s

    def packet(
        self, number: int, at_s: float, ssrc: int = 7, payload: bytes | None = None, media: int | None = None
    ) -> None:
        self.run_to(at_s)
        timestamp = (self.first_timestamp + 960 * (number if media is None else media)) & 0xFFFFFFFF
        body = str(number).encode() if payload is None else payload
        self.receiver.packet(ssrc, (self.first + number) & 0xFFFF, timestamp, body, at_s)

    @property
    def values(self) -> list[int]:
        return [value for value, *_ in self.heard]


def test_a_punctual_network_adds_no_delay() -> None:
    network = Network()
    for number in range(100):
        network.packet(number, number * BLOCK_S)
    assert network.values == list(range(100))
    assert all(when == arrived for _, _, when, arrived in network.heard)


def test_packets_that_overtook_each_other_are_put_in_order() -> None:
    network = Network()
    for number, at_s in ((0, 0.0), (2, 0.02), (1, 0.03), (3, 0.04)):
        network.packet(number, at_s)
    assert network.values == [0, 1, 2, 3]
    assert network.receiver.counts.ok == 4


def test_one_lost_packet_is_taken_from_the_next_and_delays_nothing_after_it() -> None:
    network = Network()
    for number in range(50):
        if number != 9:
            network.packet(number, number * BLOCK_S)
    assert network.values == [n if n != 9 else -9 for n in range(50)]
    when = {value: when for value, _, when, _ in network.heard}
    assert when[10] == pytest.approx(10 * BLOCK_S + 0.02)
    assert when[12] == 12 * BLOCK_S
    assert network.receiver.counts.recovered == 1


def test_a_long_loss_is_guessed_for_three_packets_and_then_silent() -> None:
    network = Network()
    for number in [*range(10), *range(31, 60)]:
        network.packet(number, number * BLOCK_S)
    counts = network.receiver.counts
    assert (counts.concealed, counts.silenced, counts.recovered) == (3, 18, 0)
    assert sum(samples for _, samples, *_ in network.heard[: len(network.heard)]) == 60 * BLOCK
    assert network.values[9:15] == [9, 30000, 30000, 30000, 0, 0]


def test_the_wait_for_a_gap_follows_the_jitter_within_bounds() -> None:
    punctual, shaky, wild = Network(), Network(), Network()
    for number in range(200):
        punctual.packet(number, number * BLOCK_S)
        shaky.packet(number, number * BLOCK_S + (number % 2) * 0.04)
        wild.packet(number, number * BLOCK_S + 0.5 * (number % 10 == 0))
    assert punctual.receiver.wait_s == 0.02
    assert shaky.receiver.wait_s == pytest.approx(0.06)
    assert wild.receiver.wait_s == 0.12


def test_late_and_repeated_packets_are_dropped_and_counted() -> None:
    network = Network()
    for number, at_s in ((0, 0.0), (0, 0.001), (2, 0.04), (3, 0.06), (3, 0.06), (1, 0.5), (1, 0.6)):
        network.packet(number, at_s)
    assert network.values == [0, -1, 2, 3]
    assert (network.receiver.counts.late, network.receiver.counts.duplicate) == (1, 3)


def test_a_mute_becomes_silence_of_its_length() -> None:
    network = Network()
    network.packet(0, 0.0)
    network.packet(1, 1.0, media=50)
    assert [samples for _, samples, *_ in network.heard] == [BLOCK, 49 * BLOCK, BLOCK]
    assert network.receiver.counts.muted_s == pytest.approx(0.98)


def test_an_hour_of_mute_is_not_filled() -> None:
    network = Network()
    network.packet(0, 0.0)
    network.packet(1, 3600.0, media=180_000)
    assert sum(samples for _, samples, *_ in network.heard) == 2 * BLOCK + 3 * 16000


def test_a_broken_packet_is_concealed() -> None:
    network = Network()
    network.packet(0, 0.0)
    network.packet(1, 0.02, payload=b"bad")
    network.packet(2, 0.04)
    assert network.values == [0, 30000, 2]
    assert network.receiver.counts.broken == 1


def test_a_flood_is_believed_only_so_far() -> None:
    network = Network()
    for number in range(20000):
        network.packet(number, number * 0.0001, media=number * 300)
    seconds = sum(samples for _, samples, *_ in network.heard) / 16000
    assert seconds < 2.0 + 5.0 + 0.1
    assert network.receiver.counts.flooded > 10000


def test_another_stream_begins_anew() -> None:
    network = Network()
    network.packet(0, 0.0)
    network.packet(5000, 0.02, ssrc=8)
    network.packet(9000, 0.04, ssrc=8)
    assert network.values == [0, 5000, 9000]
    assert network.receiver.counts.restarts == 2


def test_what_waits_behind_a_gap_is_bounded() -> None:
    network = Network(ReceiveSettings(max_held=10))
    network.packet(0, 0.0)
    for number in range(2, 40):
        network.packet(number, 0.001)
    assert network.values[-1] == 39


@given(st.integers(0, 2**32), st.floats(0, 0.3), st.floats(0, 0.3), st.floats(0, 0.1))
def test_whatever_the_network_does_nothing_is_repeated_missing_or_ever_later(
    seed: int, loss: float, jitter_s: float, duplicates: float
) -> None:
    chance, network, count = random.Random(seed), Network(), 300
    arrivals = [(0, 0.0)] + [
        (number, number * BLOCK_S + 0.01 + chance.random() * jitter_s)
        for number in range(1, count)
        for _ in range(1 + (chance.random() < duplicates))
        if chance.random() >= loss or number == count - 1
    ]
    for number, at_s in sorted(arrivals, key=lambda one: one[1]):
        network.packet(number, at_s)
    network.run_to(100.0)
    order = [abs(value) for value in network.values if abs(value) not in (0, 30000)]
    assert order == sorted(set(order))
    assert sum(samples for _, samples, *_ in network.heard) == count * BLOCK
    behind_s = [when - abs(value) * BLOCK_S for value, _, when, _ in network.heard if 0 < value < 30000]
    assert max(behind_s, default=0.0) <= 0.01 + jitter_s + 0.12 + 1e-6
    counts = network.receiver.counts
    assert counts.ok + counts.recovered + counts.concealed + counts.silenced == count
