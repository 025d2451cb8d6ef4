"""Packets in any order → sound in order, as early as it can be had. Pure: times are arguments, the decoder is given.

    arrived  4 5 ▢ 7 8     5 is released at once; 7 waits for 6 until its deadline (1.5 × the jitter's p95, 20 to
                 └ gap     120 ms), then 6 is taken from the redundancy in 7, or concealed, and 7 and 8 follow

Who listens is a detector and a model, not an ear: there is no playout delay, and a network that is punctual adds none.
Nothing here grows: what waits, what is filled in and what is believed of a flood are all bounded.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Samples = NDArray[np.int16]
Deliver = Callable[[Samples, float], None]
"""Called with sound and when it arrived (what was lost: when that was noticed)."""

RTP_RATE_HZ = 48000  # of Opus in RTP, whatever rate it was made at (RFC 7587)
RECENT_PACKETS = 250  # 5 s: the memory of the jitter


class SoundDecoder(Protocol):
    """`media.opus.Decoder`."""

    rate_hz: int

    def decode(self, packet: bytes) -> Samples: ...
    def recover(self, packet: bytes, count: int) -> Samples: ...
    def conceal(self, count: int) -> Samples: ...
    def duration(self, packet: bytes) -> int: ...
    def has_redundancy(self, packet: bytes) -> bool: ...


@dataclass(frozen=True)
class ReceiveSettings:
    min_wait_s: float = 0.02
    max_wait_s: float = 0.12
    jitter_factor: float = 1.5
    max_concealed: int = 3  # in a row; what is missing beyond is silence
    max_held: int = 64  # packets that wait behind a gap
    max_jump: int = 500  # 10 s: further on, or back, is another stream
    max_fill_s: float = 3.0  # of silence for what was lost or muted
    max_ahead_s: float = 5.0  # sound that may come faster than time passes


@dataclass
class Received:
    """Packets, by what became of them."""

    ok: int = 0
    recovered: int = 0
    concealed: int = 0
    silenced: int = 0  # lost, and too many in a row to be guessed
    late: int = 0
    duplicate: int = 0
    broken: int = 0
    flooded: int = 0
    restarts: int = 0
    muted_s: float = 0.0  # silence for times in which nothing was sent


@dataclass(frozen=True)
class _Packet:
    timestamp: int
    payload: bytes
    arrived_s: float


class Receiver:
    """One stream's. After `packet` or `timer`, call `timer` again at `due_s`."""

    def __init__(self, decoder: SoundDecoder, deliver: Deliver, settings: ReceiveSettings | None = None) -> None:
        self._decoder = decoder
        self._deliver_to = deliver
        self._settings = settings or ReceiveSettings()
        self.counts = Received()
        self._ssrc: int | None = None
        self._next: int | None = None  # the sequence number that comes next, unwrapped
        self._held: dict[int, _Packet] = {}
        self._gone: deque[int] = deque(maxlen=self._settings.max_jump)  # given up, may still come late
        self._end: int | None = None  # timestamp after the last released sample
        self._first_timestamp: int | None = None
        self._last_count = decoder.rate_hz // 50
        self._transits: deque[float] = deque(maxlen=RECENT_PACKETS)
        self._due_s: float | None = None
        self._allowance_s = self._settings.max_ahead_s
        self._allowed_at_s: float | None = None

    @property
    def due_s(self) -> float | None:
        """When the present gap is given up; None while there is none."""
        return self._due_s

    @property
    def wait_s(self) -> float:
        """How long a gap is waited for, as the network has been."""
        settings = self._settings
        if not self._transits:
            return settings.min_wait_s
        transits = np.fromiter(self._transits, float)
        jitter_s = float(np.percentile(transits, 95) - transits.min())
        return min(max(settings.jitter_factor * jitter_s, settings.min_wait_s), settings.max_wait_s)

    def packet(self, ssrc: int, sequence: int, timestamp: int, payload: bytes, now_s: float) -> None:
        """One RTP packet: 16-bit sequence, 32-bit timestamp at 48 kHz."""
        if not payload:
            return  # padding that probes the path
        number = self._unwrapped(ssrc, sequence)
        if self._next is None:
            self._next = number
        if number < self._next:
            if number in self._gone:
                self._gone.remove(number)
                self.counts.late += 1
            else:
                self.counts.duplicate += 1
            return
        if number in self._held:
            self.counts.duplicate += 1
            return
        self._transits.append(now_s - self._unwrapped_time(timestamp) / RTP_RATE_HZ)
        self._held[number] = _Packet(timestamp, payload, now_s)
        self._release(now_s)

    def timer(self, now_s: float) -> None:
        """Give up what is overdue."""
        self._release(now_s)

    def _release(self, now_s: float) -> None:
        assert self._next is not None or not self._held
        while self._held and self._next is not None:
            packet = self._held.pop(self._next, None)
            if packet is not None:
                self._play(packet, now_s)
                self._next += 1
                continue
            first = min(self._held)
            overdue_s = self._held[first].arrived_s + self.wait_s
            if now_s < overdue_s and len(self._held) <= self._settings.max_held:
                self._due_s = overdue_s
                return
            self._give_up(first, now_s)
        self._due_s = None

    def _give_up(self, first: int, now_s: float) -> None:
        """Fill what is missing before the held packet `first`."""
        assert self._next is not None
        missing = first - self._next
        self._gone.extend(range(self._next, first))
        follower = self._held[first]
        guessed = min(missing - 1, self._settings.max_concealed)
        for _ in range(guessed):
            self._give(self._decoder.conceal(self._last_count), now_s)
        self.counts.concealed += guessed
        self.counts.silenced += (silent := missing - 1 - guessed)
        self._silence(silent * self._last_count, now_s)
        if self._decoder.has_redundancy(follower.payload):
            self.counts.recovered += 1
            self._give(self._recovered(follower.payload), now_s)
        elif guessed < self._settings.max_concealed:
            self.counts.concealed += 1
            self._give(self._decoder.conceal(self._last_count), now_s)
        else:
            self.counts.silenced += 1
            self._silence(self._last_count, now_s)
        if self._end is not None:
            self._end += missing * self._ticks(self._last_count)
        self._next = first

    def _recovered(self, payload: bytes) -> Samples:
        try:
            return self._decoder.recover(payload, self._last_count)
        except ValueError:
            return self._decoder.conceal(self._last_count)

    def _play(self, packet: _Packet, now_s: float) -> None:
        if self._end is not None:
            pause = ((packet.timestamp - self._end + (1 << 31)) & 0xFFFFFFFF) - (1 << 31)
            if pause > 0:  # nothing was sent for a while: a mute, or DTX
                self.counts.muted_s += self._silence(pause * self._decoder.rate_hz // RTP_RATE_HZ, now_s)
        try:
            samples = self._decoder.decode(packet.payload)
            self.counts.ok += 1
            self._last_count = samples.size
        except ValueError:
            self.counts.broken += 1
            samples = self._decoder.conceal(self._last_count)
        self._end = (packet.timestamp + self._ticks(samples.size)) & 0xFFFFFFFF
        self._give(samples, packet.arrived_s, now_s)

    def _silence(self, count: int, now_s: float) -> float:
        """Deliver zeros, no more than are worth it; returns their seconds."""
        count = min(count, round(self._settings.max_fill_s * self._decoder.rate_hz))
        if count > 0:
            self._give(np.zeros(count, np.int16), now_s)
        return count / self._decoder.rate_hz

    def _give(self, samples: Samples, arrived_s: float, now_s: float | None = None) -> None:
        """Deliver, unless far more has come than time has passed."""
        now_s = arrived_s if now_s is None else now_s
        if self._allowed_at_s is not None:
            passed_s = 1.01 * (now_s - self._allowed_at_s)  # a clock that is 1 % fast is no flood
            self._allowance_s = min(self._settings.max_ahead_s, self._allowance_s + passed_s)
        self._allowed_at_s = now_s
        duration_s = samples.size / self._decoder.rate_hz
        if duration_s > self._allowance_s:
            self.counts.flooded += 1
            return
        self._allowance_s -= duration_s
        self._deliver_to(samples, arrived_s)

    def _ticks(self, count: int) -> int:
        return count * RTP_RATE_HZ // self._decoder.rate_hz

    def _unwrapped(self, ssrc: int, sequence: int) -> int:
        """The sequence number without its wraps; another stream begins anew."""
        if self._next is not None and ssrc == self._ssrc:
            step = ((sequence - self._next + (1 << 15)) & 0xFFFF) - (1 << 15)
            if abs(step) <= self._settings.max_jump:
                return self._next + step
        if self._next is not None:
            self.counts.restarts += 1
        self._ssrc = ssrc
        self._next, self._end, self._due_s = None, None, None
        self._held.clear()
        self._gone.clear()
        self._transits.clear()
        self._first_timestamp = None
        return sequence + (1 << 16)

    def _unwrapped_time(self, timestamp: int) -> int:
        """The timestamp relative to the stream's first, without its wraps (of 25 hours, while packets come)."""
        if self._first_timestamp is None:
            self._first_timestamp = timestamp
        return ((timestamp - self._first_timestamp + (1 << 31)) & 0xFFFFFFFF) - (1 << 31)
