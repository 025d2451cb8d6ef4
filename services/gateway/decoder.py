"""One utterance on its way through codec: on one replica, and on the next when that one is lost.

Keeps every frame. Another replica is given them all, from the first on, and what it says again is dropped: its filters
then stand exactly where the first one's stood, and the next sample joins.

    frames kept   ■■■■■■■■■■■■■■■■■■■
                  answered ▲   ▲ sent     at most WINDOW between them, so that a replay does not flood a queue
"""

from __future__ import annotations

import logging
from array import array
from collections.abc import Callable
from typing import Protocol

from voicemesh.codec.v1 import codec_pb2
from voicemesh.stream.v1 import stream_pb2

from common.errors import Broken, MeshError, NotReady, SequenceGap
from common.stage import duration
from common.status import error_of
from common.stream import FinishReason
from services.gateway.clients import Replica, Stages, StageStream
from services.gateway.search import Patience, Search

logger = logging.getLogger(__name__)
WINDOW_FRAMES = 512
Stream = StageStream[codec_pb2.DecodeRequest, codec_pb2.DecodeResponse]


class Listener(Protocol):
    """Who hears the sound."""

    def codec_started(self) -> None: ...
    def sound(self, chunk: codec_pb2.AudioChunk) -> None: ...


class Decoder:
    """`start` says how to decode. `frames` and `flush` never wait."""

    def __init__(
        self,
        stages: Stages,
        session_id: str,
        epoch: int,
        start: codec_pb2.DecodeStart,
        patience: Patience,
        listener: Listener,
        leave: Callable[[Stream], None],
    ) -> None:
        self._stages = stages
        self._session_id = session_id
        self._epoch = epoch
        self._start = start
        self._listener = listener
        self._leave = leave
        self._search = Search(stages.codec, session_id, patience)
        self._stream: Stream | None = None
        self._has_started = False
        self._codes = array("i")
        self._width = 1  # codes of a frame
        self._kept = self._sent = self._answered = 0  # frames
        self._is_flushed = self._flush_is_sent = False
        self._heard_frames = 0
        self.sample_count = 0  # heard
        self.compute_s = 0.0

    def frames(self, codes: array[int], frame_count: int) -> None:
        """The next frames."""
        self._width = len(codes) // frame_count
        self._codes.extend(codes)
        self._kept += frame_count
        self._pump()

    def flush(self) -> None:
        """The frames are complete."""
        self._is_flushed = True
        self._pump()

    def hang_up(self) -> None:
        """Nobody wants the rest."""
        if self._stream is not None:
            self._stream.hang_up()

    async def run(self) -> None:
        """Decode to the end; raises the `MeshError` that nobody could help with."""
        error: MeshError | None = None
        while True:
            replica = await self._search.next(error)
            try:
                await self._listen(replica)
                return
            except MeshError as lost:
                error = lost
                facts = {"address": replica.address, "reason": lost.reason, "kept_frames": self._kept}
                logger.warning("codec refused or lost", extra=facts)

    async def _listen(self, replica: Replica) -> None:
        replica.begin()
        stream = self._stream = self._stages.decode(replica)
        is_over = False
        try:
            stream.send(codec_pb2.DecodeRequest(session_id=self._session_id, epoch=self._epoch, start=self._start))
            self._sent = self._answered = 0
            self._flush_is_sent = False
            self._pump()
            while not is_over:
                response = await stream.receive()
                payload = response.WhichOneof("payload")
                if payload == "started":
                    self._started()
                elif payload == "audio":
                    self._audio(response.audio)
                elif payload == "ended":
                    self._ended(response.ended)
                    is_over = True
        finally:
            self._stream = None
            replica.end()
            if is_over:
                self._leave(stream)
            else:
                stream.hang_up()

    def _pump(self) -> None:
        """Send what may be sent."""
        if self._stream is None:
            return
        count = min(self._kept - self._sent, WINDOW_FRAMES - (self._sent - self._answered))
        if count > 0:
            codes = self._codes[self._sent * self._width : (self._sent + count) * self._width]
            frames = codec_pb2.CodecFrames(first_frame_index=self._sent, frame_count=count, codes=codes)
            self._stream.send(codec_pb2.DecodeRequest(epoch=self._epoch, frames=frames))
            self._sent += count
        if self._is_flushed and self._sent == self._kept and not self._flush_is_sent:
            self._flush_is_sent = True
            self._stream.send(codec_pb2.DecodeRequest(epoch=self._epoch, flush=stream_pb2.Flush()))

    def _started(self) -> None:
        self._search.admitted()
        if not self._has_started:
            self._has_started = True
            self._listener.codec_started()

    def _audio(self, chunk: codec_pb2.AudioChunk) -> None:
        self._answered += chunk.frame_count
        if self._sent < self._kept:
            self._pump()
        if chunk.first_sample_offset > self.sample_count:
            raise SequenceGap(f"Sample {self.sample_count} comes next, not {chunk.first_sample_offset}.")
        known = self.sample_count - chunk.first_sample_offset
        if known >= chunk.sample_count:
            return
        self._search.progressed()
        if known:
            _cut(chunk, known, self._heard_frames)
        self.sample_count += chunk.sample_count
        self._heard_frames += chunk.frame_count
        self._listener.sound(chunk)

    def _ended(self, ended: stream_pb2.Ended) -> None:
        """The stage's last word; raises it when another replica may do better."""
        if ended.HasField("error"):
            raise error_of(ended.error)
        if FinishReason(ended.reason) is FinishReason.CANCELLED:  # not by us: it is shutting down
            raise NotReady("A codec gave up.", reason="DRAINING")
        if not self._flush_is_sent:
            raise Broken("A codec ended before its frames did.")
        self.compute_s += ended.compute_time.ToNanoseconds() / 1e9


def _cut(chunk: codec_pb2.AudioChunk, known: int, heard_frames: int) -> None:
    """Take away the samples at the front that were heard before. Opus is never cut: its packets begin at multiples of
    20 ms, on every replica the same ones."""
    last_frame = chunk.first_frame_index + chunk.frame_count
    rate_hz = chunk.sample_count / (chunk.duration.ToNanoseconds() / 1e9)
    chunk.payload = chunk.payload[known * (len(chunk.payload) // chunk.sample_count) :]
    chunk.first_sample_offset += known
    chunk.sample_count -= known
    chunk.first_frame_index = heard_frames
    chunk.frame_count = last_frame - heard_frames
    chunk.duration.CopyFrom(duration(chunk.sample_count / rate_hz))
