"""A conversation over a stream of messages: `Converse`, whatever writes and reads them.

Refuses to know gRPC (its caller does) and turns. Requests are judged and handed on at once; responses go out in order,
sound among them as the pacer gives it. A reader that is too slow holds up the playout, then loses its stream.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

from voicemesh.gateway.v1 import gateway_pb2

from common.duplex import Limits, Writer, draining_error
from common.errors import Broken, InvalidRequest, MeshError, OutOfOrder, OutOfTime, Overloaded
from common.observer import Observer
from common.stream import Drop
from common.waiting import attentive_sleep
from services.gateway.session import ports
from services.gateway.session.asked import Asked, asked_of
from services.gateway.session.dialogue import Dialogue
from services.gateway.session.formats import Intake
from services.gateway.session.guard import ConverseGuard
from services.gateway.session.narration import Response
from services.gateway.session.registry import Registry
from services.gateway.session.stream_transport import StreamTransport

MAX_MESSAGE_S = 5.0
MAX_AHEAD_S = 30.0
HANG_UP_GRACE_S = 0.05  # grpc.aio says some 0.1 ms after the last request that the caller is gone, if it is
_ENDS: dict[str, Callable[[], MeshError]] = {
    "draining": draining_error,
    "replaced": lambda: OutOfOrder("Another connection took this session over."),
    "broken": lambda: Broken("The conversation broke; the gateway's log says how."),
}


class Converse:
    """One call. `serve` returns when the conversation is over; it raises what ends the stream with a status."""

    def __init__(self, registry: Registry, limits: Limits, observer: Observer, writer: Writer) -> None:
        self._registry = registry
        self._limits = limits
        self._observer = observer
        self._writer = writer
        self._guard = ConverseGuard()
        self._seq = 0
        self._time = asyncio.get_running_loop().time
        self._moved_s = self._opened_s = self._time()
        self._heard_s = 0.0  # of sound
        self._writing_since_s: float | None = None
        self._begun = asyncio.Event()
        self._asked: Asked
        self._transport: StreamTransport
        self._dialogue: Dialogue | None = None
        self._intake: Intake

    async def serve(self, requests: AsyncIterator[gateway_pb2.ConverseRequest]) -> None:
        """The headers go first and alone, as in `common.duplex.Edge`."""
        await self._writer.send_initial_metadata(())
        reading: asyncio.Task[None] | None = None
        try:
            async with asyncio.TaskGroup() as group:
                reading = group.create_task(self._read(requests))
                watching = group.create_task(self._watch())
                await self._write()
                reading.cancel()
                watching.cancel()
        finally:
            is_broken = reading is not None and not reading.cancelled() and reading.exception() is not None
            self._leave(is_broken)

    def _leave(self, is_broken: bool) -> None:
        """Whoever was lost may come back, unless somebody else carries the conversation. Whoever broke the protocol
        would break it again: that conversation ends, so that it keeps no place."""
        dialogue = self._dialogue
        if dialogue is None:
            return
        if self._transport.stale_blocks:
            self._observer.stale(self._transport.stale_blocks)
        if not dialogue.is_carried_by(self._transport):
            return
        if is_broken:
            dialogue.end("the protocol was broken")
        else:
            dialogue.suspend()

    # Requests.

    async def _read(self, requests: AsyncIterator[gateway_pb2.ConverseRequest]) -> None:
        async for request in requests:
            self._moved_s = self._time()
            if self._dialogue is None:
                if self._guard.accept(request, None, 0) is None:
                    self._open(request)
            else:
                self._take(self._dialogue, request)
                await self._hold_up()
        self._begun.set()
        await attentive_sleep(HANG_UP_GRACE_S)
        if self._dialogue is not None:
            self._dialogue.drain("the person has nothing more to say")

    async def _hold_up(self) -> None:
        """Nobody speaks faster than time passes, and listening to what comes in one piece would hold up the others."""
        ahead_s = self._heard_s - (self._time() - self._opened_s) - MAX_AHEAD_S
        if ahead_s > 0:
            await asyncio.sleep(min(ahead_s, 1.0))

    def _hear(self, dialogue: Dialogue, payload: bytes) -> None:
        samples = self._intake.take(payload)
        seconds = samples.size / ports.HEARD_RATE_HZ
        if seconds > MAX_MESSAGE_S:
            raise InvalidRequest(f"A message holds at most {MAX_MESSAGE_S:g} s of sound.", reason="TOO_LARGE")
        self._heard_s += seconds
        dialogue.hear(samples, self._time())

    def _open(self, request: gateway_pb2.ConverseRequest) -> None:
        self._asked = asked_of(request.start)
        self._intake = Intake(self._asked.input_format)
        self._transport = StreamTransport(self._asked.output_format)
        token = request.start.resume_token
        self._dialogue = self._registry.open(
            self._transport, self._asked.settings, session_id=request.session_id, resume_token=token
        )
        self._guard.session_id = self._dialogue.session_id
        self._begun.set()

    def _take(self, dialogue: Dialogue, request: gateway_pb2.ConverseRequest) -> None:
        drop = self._guard.accept(request, dialogue.wanted_epoch, dialogue.epoch)
        if drop is not None:
            (self._observer.stale if drop is Drop.STALE else self._observer.repeated)()
            return
        try:
            self._do(dialogue, request)
        except MeshError as error:  # of this message alone: it is told, and the conversation goes on
            self._transport.tell(ports.Failed(error))

    def _do(self, dialogue: Dialogue, request: gateway_pb2.ConverseRequest) -> None:
        match request.WhichOneof("payload"):
            case "audio":
                self._hear(dialogue, request.audio)
            case "text":
                dialogue.type(request.text)
            case "interrupt":
                dialogue.interrupt()
            case "commit":
                dialogue.commit()
            case "clear":
                dialogue.clear()
            case "playback":
                self._report(dialogue, request.playback)
            case "tool_result":
                result = request.tool_result
                dialogue.tool_result(result.id, result.content, result.failed)

    def _report(self, dialogue: Dialogue, report: gateway_pb2.PlaybackReport) -> None:
        rate_hz = self._asked.output_format.sample_rate_hz
        heard = round(report.heard_sample_offset * ports.PLAYED_RATE_HZ / rate_hz) or None
        has_buffer = report.HasField("client_buffer")
        dialogue.report_playback(heard, report.client_buffer.ToNanoseconds() / 1e9 if has_buffer else None)
        if report.HasField("first_audible_delay"):
            delay_s = report.first_audible_delay.ToNanoseconds() / 1e9
            for epoch, sent_s in self._transport.first_sent_s.items():
                dialogue.report_first_audible(epoch, sent_s + delay_s)

    # Responses.

    async def _write(self) -> None:
        await self._begun.wait()
        dialogue = self._dialogue
        if dialogue is None:  # nothing was asked for
            return
        transport = self._transport
        started = gateway_pb2.ConverseStarted(
            resume_token=dialogue.resume_token,
            output_format=self._asked.output_format,
            resumed=self._asked.is_resumption,
        )
        await self._send(dialogue, None, Response(started=started))
        while (told := await transport.next()) is not None:
            for epoch, response in told:
                await self._send(dialogue, epoch, response)
        if transport.closing in _ENDS:
            raise _ENDS[transport.closing]()

    async def _send(self, dialogue: Dialogue, epoch: int | None, response: Response) -> None:
        response.session_id = dialogue.session_id
        response.epoch = dialogue.epoch if epoch is None else epoch
        response.seq = self._seq
        self._seq += 1
        self._writing_since_s = self._time()
        await self._writer.write(response)
        self._writing_since_s = None
        self._moved_s = self._time()

    # Watching: nobody may hold a stream for ever.

    async def _watch(self) -> None:
        limits = self._limits
        shortest_s = min(limits.idle_s, limits.slow_reader_s, 1.0)
        while True:
            await asyncio.sleep(shortest_s)
            now_s, since_s = self._time(), self._writing_since_s
            is_slow = since_s is not None and now_s - since_s > limits.slow_reader_s
            if is_slow or (self._dialogue is not None and self._transport.is_too_slow):
                raise Overloaded(f"No response was read for {limits.slow_reader_s:g} s.", reason="SLOW_READER")
            if now_s - self._moved_s > limits.idle_s:
                raise OutOfTime(f"Nothing was said for {limits.idle_s:g} s.")
