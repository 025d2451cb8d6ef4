"""The receive path on the event loop: packets as they come, and the timer that gives a gap up."""

from __future__ import annotations

import asyncio
from typing import Any

from services.gateway.media.opus import Decoder
from services.gateway.media.receive import Deliver, Received, Receiver


class Uplink:
    """Stands where aiortc has its jitter buffer: packets go to us, aiortc has nothing to decode or to queue."""

    def __init__(self, deliver: Deliver) -> None:
        self._loop = asyncio.get_running_loop()
        self._receiver = Receiver(Decoder(), deliver)
        self._timer: asyncio.TimerHandle | None = None
        self._timer_due_s: float | None = None
        self.last_s: float | None = None  # when a packet came last
        self.closed = False

    @property
    def counts(self) -> Received:
        return self._receiver.counts

    @property
    def wait_s(self) -> float:
        """How long a gap is waited for."""
        return self._receiver.wait_s

    def add(self, packet: Any) -> tuple[bool, None]:
        """(no keyframe is wanted, no frame is complete)"""
        if not self.closed:
            self.last_s = now_s = self._loop.time()
            self._receiver.packet(packet.ssrc, packet.sequence_number, packet.timestamp, packet._data, now_s)
            self._set_timer()
        return False, None

    def close(self) -> None:
        """Nothing is delivered any more."""
        self.closed = True
        if self._timer is not None:
            self._timer.cancel()

    def _gap_is_due(self) -> None:
        self._timer = None
        self._receiver.timer(self._loop.time())
        self._set_timer()

    def _set_timer(self) -> None:
        due_s = self._receiver.due_s
        if self._timer is not None:
            if due_s == self._timer_due_s:
                return
            self._timer.cancel()
        self._timer_due_s = due_s
        self._timer = None if due_s is None else self._loop.call_at(due_s, self._gap_is_due)
