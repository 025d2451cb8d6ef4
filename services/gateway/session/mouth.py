"""The way out of one conversation: its playout, asked every 20 ms for what goes out now, and who takes it.

Nothing here waits: `_tick` runs in the pacer's thread, which all conversations share; what it notices is told on the
loop.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress

from services.gateway.media.echo import EchoCanceller
from services.gateway.media.playout import Playout, PlayoutEvent
from services.gateway.session.house import Clock
from services.gateway.session.ports import Transport

Told = Callable[[int | None, float, tuple[PlayoutEvent, ...]], None]
"""The epoch whose first block went out just now, if one's did; the Unix time; what else happened."""


class Mouth:
    """`told` is called on the loop."""

    def __init__(self, clock: Clock, told: Told) -> None:
        self._clock = clock
        self._told = told
        self._loop = asyncio.get_running_loop()
        self._key: int | None = None
        self.transport: Transport | None = None
        self._echo: EchoCanceller | None = None
        # of the pacer's thread alone:
        self._news: list[PlayoutEvent] = []  # of the block that is being made
        self._audible_epoch = -1  # of the last block that was speech
        self._last_slot = -1
        self.playout = Playout(self._news.append)

    def attach(self, transport: Transport, echo: EchoCanceller | None) -> None:
        """Speak to that one from now on; `echo` is told what it plays."""
        self.detach()
        self.playout.forget_cut()
        self.transport, self._echo, self._last_slot = transport, echo, -1
        self._key = self._clock.add(self._tick)

    def detach(self) -> Transport | None:
        """Speak to nobody; returns who was spoken to."""
        transport, self.transport, self._echo = self.transport, None, None
        if self._key is not None:
            self._clock.remove(self._key)
            self._key = None
        return transport

    def _tick(self, slot: int, now_s: float) -> None:
        """In the pacer's thread."""
        transport, echo = self.transport, self._echo
        if transport is None or not transport.ready:
            return
        block = self.playout.next_block(now_s)
        handed_s = time.time()  # not after: a thread may lose its turn anywhere
        transport.play(block)
        if echo is not None:
            echo.played(block.samples, max(0, slot - self._last_slot - 1))
        self._last_slot = slot
        is_first = block.is_speech and block.epoch > self._audible_epoch
        if is_first:
            self._audible_epoch = block.epoch
        if is_first or self._news:
            news = tuple(self._news)
            self._news.clear()
            with suppress(RuntimeError):  # the loop has ended, and with it everybody who listens
                self._loop.call_soon_threadsafe(self._told, block.epoch if is_first else None, handed_s, news)
