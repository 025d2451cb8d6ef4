"""Blocks of sound → Opus packets on their way to aiortc, from the pacer's thread to the loop's. No jitter is added."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from fractions import Fraction
from typing import Any

from aiortc import MediaStreamTrack
from av.packet import Packet

from services.gateway.media.opus import Encoder
from services.gateway.session.ports import BLOCK_S, Block

RTP_BLOCK = 960  # 20 ms of Opus' RTP clock
TIME_BASE = Fraction(1, 48000)
MAX_WAITING = 2


class MediaClock:
    """RTP time that follows the clock and only rises: a slot per block, and the slots that were missed. Pure."""

    def __init__(self) -> None:
        self._origin_s: float | None = None
        self.slot = -1

    def next(self, now_s: float) -> tuple[int, int]:
        """The slot of the block that goes out now, and how many were missed before it."""
        if self._origin_s is None:
            self._origin_s = now_s
        missed = max(0, int((now_s - self._origin_s) / BLOCK_S) - (self.slot + 1))  # the pacer is less than one late
        self.slot += 1 + missed
        return self.slot, missed


class Downlink(MediaStreamTrack):
    """A track of packets that are encoded already; aiortc only wraps and sends them."""

    kind = "audio"

    def __init__(self, encoder: Encoder, time: Callable[[], float]) -> None:
        super().__init__()
        self.encoder = encoder
        self._time = time
        self._event_loop = asyncio.get_running_loop()
        self._clock = MediaClock()
        self._packets: deque[tuple[int, bytes, bool]] = deque()
        self._was_speech = False
        self._wake = asyncio.Event()
        self._started = False
        self.skipped_slots = 0
        self.begins_spurt = False  # the packet that aiortc took last is the first of what is said

    @property
    def slot(self) -> int:
        """Of the last block, on the media clock; -1 before the first."""
        return self._clock.slot

    @property
    def ready(self) -> bool:
        """The path is open and nothing piles up."""
        return self._started and len(self._packets) < MAX_WAITING

    def play(self, block: Block) -> None:
        """Encode and hand over; the pacer's thread."""
        slot, missed = self._clock.next(self._time())
        self.skipped_slots += missed
        begins = block.is_speech and not self._was_speech
        self._was_speech = block.is_speech
        self._packets.append((slot, self.encoder.encode(block.samples), begins))
        with suppress(RuntimeError):  # the loop has ended, and with it everybody who listens
            self._event_loop.call_soon_threadsafe(self._wake.set)

    async def recv(self) -> Packet[Any]:
        """The next packet; aiortc asks from when the path is open."""
        self._started = True
        while not self._packets:
            self._wake.clear()
            await self._wake.wait()
        slot, payload, self.begins_spurt = self._packets.popleft()
        packet = Packet(payload)
        packet.pts = slot * RTP_BLOCK
        packet.time_base = TIME_BASE
        return packet
