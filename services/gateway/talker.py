"""One utterance on its way through tts_lm: on one replica, and on the next when that one is lost.

Keeps what it was told and the frames that it made. Another replica is given both (`resume`), rebuilds in one prefill
what the first one knew, and goes on with the frame that would have come next: the same integers.
"""

from __future__ import annotations

import asyncio
import logging
from array import array
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from voicemesh.stream.v1 import stream_pb2
from voicemesh.tts_lm.v1 import tts_lm_pb2

from common.errors import MeshError, NotReady, SequenceGap
from common.status import error_of
from common.stream import FinishReason
from services.gateway.allowance import Allowance
from services.gateway.clients import Replica, Stages, StageStream
from services.gateway.script import Script, Segment
from services.gateway.search import Patience, Search

logger = logging.getLogger(__name__)
MIN_REFERENCE_FRAMES = 25  # two seconds: less of a voice is no better reference than the one before
Stream = StageStream[tts_lm_pb2.GenerateRequest, tts_lm_pb2.GenerateResponse]
Part = tts_lm_pb2.TextDelta | stream_pb2.Flush | stream_pb2.Credit


class Listener(Protocol):
    """Who hears the talker."""

    def talker_started(self, seed: int) -> None: ...
    def frames(self, codes: array[int], frame_count: int, text_offset: int) -> None: ...


@dataclass
class Talked:
    """How it ended, over all replicas and segments."""

    reason: FinishReason = FinishReason.COMPLETED
    text_token_count: int = 0
    frame_count: int = 0
    compute_s: float = 0.0


class Talker:
    """`start` says how to speak; its `packet_ramp` is complete, its credit is the allowance's."""

    def __init__(
        self,
        stages: Stages,
        session_id: str,
        epoch: int,
        start: tts_lm_pb2.GenerateStart,
        script: Script,
        allowance: Allowance,
        patience: Patience,
        listener: Listener,
        leave: Callable[[Stream], None],
    ) -> None:
        self._stages = stages
        self._session_id = session_id
        self._epoch = epoch
        self._start = start
        self._script = script
        self._allowance = allowance
        self._listener = listener
        self._leave = leave
        self._search = Search(stages.tts_lm, session_id, patience)
        self._stream: Stream | None = None
        self._news = asyncio.Event()
        self._time = asyncio.get_running_loop().time
        self._moved_s = self._time()  # when text or a frame last came
        self._segment = 0
        self._seed: int | None = None
        self._codes = array("i")  # of the segment, those resumed from included
        self._first_index: int | None = None  # of the segment's first frame that was made for us
        self._made = 0  # frames of the segment
        self._read = 0  # text tokens of the segment
        self._is_resumed = False  # the replica goes on with what another one began
        self.talked = Talked()
        self._codes.extend(start.resume.codes)

    # What the caller does. Nothing is sent while no replica listens: the next one is told everything.

    def feed(self, text: str) -> None:
        """More text."""
        if text:
            self._moved_s = self._time()
            was_closed = self._script.spoken.is_closed
            self._tell_text(self._script.feed(text), was_closed)

    def close_segment(self) -> None:
        """Speak what was said so far to its end; what comes later is a segment of its own."""
        if self._script.close():
            self._tell(stream_pb2.Flush())

    def flush(self) -> None:
        """The text is complete."""
        was_closed = self._script.spoken.is_closed
        self._tell_text(self._script.flush(), was_closed)

    def credit(self, frames: int) -> None:
        """More may be made."""
        if frames:
            self._tell(stream_pb2.Credit(frames=frames))
            self._news.set()

    def hang_up(self) -> None:
        """Nobody wants the rest."""
        if self._stream is not None:
            self._stream.hang_up()

    def _tell_text(self, text: str, was_closed: bool) -> None:
        if text:
            self._tell(tts_lm_pb2.TextDelta(text=text))
        if self._script.spoken.is_closed and not was_closed:
            self._tell(stream_pb2.Flush())
        self._news.set()

    def _tell(self, part: Part) -> None:
        if self._stream is None:
            return
        request = tts_lm_pb2.GenerateRequest(epoch=self._epoch)
        if isinstance(part, tts_lm_pb2.TextDelta):
            request.text.CopyFrom(part)
        elif isinstance(part, stream_pb2.Credit):
            request.credit.CopyFrom(part)
        else:
            request.flush.CopyFrom(part)
        self._stream.send(request)

    # What the stage does.

    async def run(self) -> Talked:
        """Speak to the end; raises the `MeshError` that nobody could help with."""
        while True:
            reason = await self._speak()
            self._count()
            if reason is not FinishReason.COMPLETED or not await self._has_more():
                self.talked.reason = reason
                return self.talked
            self._next_segment()

    async def close_when_late(self, text_timeout_s: float) -> None:
        """Close the segment whenever text and frames have stayed away for so long, until cancelled."""
        while True:
            left_s = self._moved_s + text_timeout_s - self._time()
            if left_s > 0:
                await asyncio.sleep(left_s)
                continue
            if self._allowance.left > 0:  # otherwise it is the caller who is behind
                self.close_segment()
            self._moved_s = self._time()

    async def _has_more(self) -> bool:
        while not self._script.has_more:
            if self._script.is_flushed:
                return False
            await self._wait()
        return True

    async def _wait(self) -> None:
        self._news.clear()
        await self._news.wait()

    def _count(self) -> None:
        self.talked.text_token_count += self._read
        self._read = 0

    def _next_segment(self) -> None:
        """A new utterance for the stage; a cloned voice goes on from how it sounded last."""
        spoken, clone = self._script.spoken, self._start.voice.clone
        if clone.codes and self._made >= MIN_REFERENCE_FRAMES:
            clone.ClearField("codes")
            clone.codes.extend(self._codes)
            clone.reference_text = spoken.text.strip()
        self._script.advance()
        self._segment += 1
        self._codes = array("i")
        self._first_index, self._made = None, 0

    async def _speak(self) -> FinishReason:
        """The segment, on as many replicas as it takes."""
        error: MeshError | None = None
        while True:
            if self._frames_left() == 0:
                return FinishReason.LENGTH  # who was to say so is gone
            replica = await self._search.next(error)
            while self._allowance.left <= 0:  # 0 would mean: as many as you like
                await self._wait()
            try:
                return await self._listen(replica)
            except MeshError as lost:
                error = lost
                facts = {"address": replica.address, "reason": lost.reason, "kept_frames": self._made}
                logger.warning("tts_lm refused or lost", extra=facts)

    def _frames_left(self) -> int | None:
        most = self._start.max_frames
        return most - self.talked.frame_count if most else None

    async def _listen(self, replica: Replica) -> FinishReason:
        replica.begin()
        stream = self._stream = self._stages.generate(replica)
        is_over = False
        try:
            self._open(stream, self._script.spoken)
            while True:
                response = await stream.receive()
                payload = response.WhichOneof("payload")
                if payload == "started":
                    self._started(response.started.seed)
                elif payload == "frames":
                    self._frames(response.frames)
                    if self._is_resumed and self._frames_left() == 0:
                        return FinishReason.LENGTH
                elif payload == "ended":
                    reason = self._ended(response.ended)
                    is_over = True
                    return reason
        finally:
            self._stream = None
            replica.end()
            if is_over:
                self._leave(stream)
            else:
                stream.hang_up()

    def _open(self, stream: Stream, segment: Segment) -> None:
        start = tts_lm_pb2.GenerateStart()
        start.CopyFrom(self._start)
        start.max_lead_frames = self._allowance.left
        if start.max_frames:  # of which a stage counts what it delivers itself
            start.max_frames -= self.talked.frame_count
        start.ClearField("resume")
        self._is_resumed = self._made > 0
        if self._codes:
            start.resume.codes.extend(self._codes)
            start.resume.text_token_count = self._read or self._start.resume.text_token_count
        if self._seed is not None:
            start.sampling.seed = (self._seed + self._segment) % 2**64
        request = tts_lm_pb2.GenerateRequest(
            session_id=self._session_id, epoch=self._epoch, utterance=self._segment, start=start
        )
        stream.send(request)
        if segment.text:
            self._tell(tts_lm_pb2.TextDelta(text=segment.text))
        if segment.is_closed:
            self._tell(stream_pb2.Flush())

    def _started(self, seed: int) -> None:
        self._search.admitted()
        if self._seed is None:
            self._seed = seed
            self._listener.talker_started(seed)

    def _frames(self, frames: tts_lm_pb2.Frames) -> None:
        if self._first_index is None:
            self._first_index = frames.first_frame_index
        expected = self._first_index + self._made
        if frames.first_frame_index != expected:
            raise SequenceGap(f"Frame {expected} comes next, not {frames.first_frame_index}.", expected=str(expected))
        codes, count, left = array("i", frames.codes), frames.frame_count, self._frames_left()
        if left is not None and count > left:
            codes, count = codes[: left * (len(codes) // count)], left
        if not count:
            return
        self._search.progressed()
        self._moved_s = self._time()
        self._made += count
        self.talked.frame_count += count
        self._read = frames.text_token_count
        self._allowance.made(count)
        self._codes.extend(codes)
        offset = self._script.spoken.first_character + frames.text_offset if frames.HasField("text_offset") else 0
        self._listener.frames(codes, count, offset)

    def _ended(self, ended: stream_pb2.Ended) -> FinishReason:
        """The stage's last word; raises it when another replica may do better."""
        reason = FinishReason(ended.reason)
        if ended.HasField("error"):
            raise error_of(ended.error)
        if reason is FinishReason.CANCELLED:  # not by us: it is shutting down
            raise NotReady("A talker gave up.", reason="DRAINING")
        self._read = ended.text_token_count
        self.talked.compute_s += ended.compute_time.ToNanoseconds() / 1e9
        return reason
