"""What goes out on one stream of `Converse`, in order: a `ports.Transport` whose other end is a queue.

Sound that the stream has not written holds up the playout. After the end of an answer nothing of it is written.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from contextlib import suppress

from voicemesh.gateway.v1 import gateway_pb2
from voicemesh.stream.v1 import stream_pb2

from common.stage import duration, timestamp
from common.stream import FinishReason
from services.gateway.session import ports
from services.gateway.session.formats import Outlet, Packet
from services.gateway.session.narration import Narrator, Response

READY_BLOCKS = 10  # given to the stream and not written: beyond it the playout waits
MAX_EVENTS = 4096
Told = list[tuple[int | None, Response]]
"""Messages, each with its epoch; None: the current one."""


class StreamTransport:
    """What goes out on one stream, in order. `ports.Transport`."""

    kind = "grpc"

    def __init__(self, form: stream_pb2.AudioFormat) -> None:
        self._form = form
        self._loop = asyncio.get_running_loop()
        self._out: deque[ports.SessionEvent | ports.Block] = deque()
        self._news = asyncio.Event()
        self._outlets: dict[int, Outlet] = {}
        self._narrator = Narrator()
        self._given = 0  # blocks, by the pacer's thread
        self._gone = 0  # of these, written or dropped, by the loop
        self._floor = 0
        self.first_sent_s: dict[int, float] = {}  # when an epoch's first packet was written, by the loop's clock
        self.is_too_slow = False
        self.closing: str | None = None
        self.stale_blocks = 0

    @property
    def ready(self) -> bool:
        return self._given - self._gone < READY_BLOCKS

    @property
    def client_buffer_s(self) -> float:
        return ports.DEFAULT_CLIENT_BUFFER_S

    def tell(self, event: ports.SessionEvent) -> None:
        if isinstance(event, ports.AnswerEnded) and event.reason is not FinishReason.COMPLETED:
            self._floor = max(self._floor, event.epoch + 1)
        if len(self._out) >= MAX_EVENTS:
            self.is_too_slow = True
        else:
            self._out.append(event)
        self._news.set()

    def play(self, block: ports.Block) -> None:
        if not block.is_speech:
            return
        self._given += 1
        with suppress(RuntimeError):  # the loop has ended, and with it everybody who listens
            self._loop.call_soon_threadsafe(self._sound, block)

    def _sound(self, block: ports.Block) -> None:
        self._out.append(block)
        self._news.set()

    async def close(self, reason: str) -> None:
        self.closing = self.closing or reason
        self._news.set()

    async def next(self) -> Told | None:
        """What is to be written next, perhaps nothing; None when it is over."""
        while not self._out:
            if self.closing is not None:
                return None
            self._news.clear()
            await self._news.wait()
        item = self._out.popleft()
        if isinstance(item, ports.Block):
            self._gone += 1
            return self._block(item)
        if isinstance(item, ports.AnswerEnded):
            return self._ended(item)
        told = self._narrator.response(item)
        return [] if told is None else [(getattr(item, "epoch", None), told)]

    def _block(self, block: ports.Block) -> Told:
        if block.epoch < self._floor:
            self.stale_blocks += 1
            return []
        outlet = self._outlets.get(block.epoch)
        if outlet is None:
            outlet = self._outlets[block.epoch] = Outlet(self._form)
            self.first_sent_s = {block.epoch: self._loop.time()}
        return self._audio(block.epoch, outlet.push(block.samples))

    def _audio(self, epoch: int, packet: Packet | None) -> Told:
        if packet is None:
            return []
        audio = gateway_pb2.SpeechAudio(
            first_sample_offset=packet.first_sample_offset,
            sample_count=packet.sample_count,
            payload=packet.payload,
            duration=duration(packet.sample_count / self._form.sample_rate_hz),
            produced_time=timestamp(time.time()),
        )
        return [(epoch, Response(audio=audio))]

    def _ended(self, event: ports.AnswerEnded) -> Told:
        self._floor = max(self._floor, event.epoch + 1)
        outlet = self._outlets.pop(event.epoch, None)
        messages: Told = []
        if outlet is not None and event.reason is FinishReason.COMPLETED:
            messages += self._audio(event.epoch, outlet.flush())
        told = self._narrator.response(event, 0 if outlet is None else outlet.sample_count)
        assert told is not None, "an end is always told"
        return [*messages, (event.epoch, told)]
