"""One utterance between the talker and the codec: what each says of it, what the caller allows, how it ends.

Knows what the stages' messages mean and refuses to know how a stage is reached or what came before.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from voicemesh.codec.v1 import codec_pb2
from voicemesh.stream.v1 import stream_pb2
from voicemesh.tts_lm.v1 import tts_lm_pb2

from common.errors import InvalidRequest, MeshError
from common.stage import End
from common.status import error_of
from common.stream import FinishReason

if TYPE_CHECKING:
    from services.gateway.pipeline import SpeechLine


@dataclass(frozen=True, slots=True)
class Started:
    """Both stages have admitted the utterance."""

    seed: int


@dataclass(frozen=True, slots=True)
class Sound:
    """A packet of the codec, and how many characters of the text had been read when its frames were made."""

    chunk: codec_pb2.AudioChunk
    text_offset: int


@dataclass(frozen=True, slots=True)
class SpeechEnded:
    """Exactly one, last."""

    end: End


Event = Started | Sound | SpeechEnded


class Allowance:
    """How many frames the talker may make: what the caller allows, and at most `lead` beyond what it took. Pure.

    `caller` is None while the caller runs free.
    """

    def __init__(self, lead: int, max_lead_frames: int) -> None:
        self._lead = lead
        self._caller = max_lead_frames or None
        self._made = 0
        self._taken = 0
        self.granted = min(lead, max_lead_frames or lead)

    def credit(self, frames: int) -> int:
        """The caller allows more; returns the credit to send."""
        self._caller = frames + (self._made if self._caller is None else self._caller)
        return self._grant()

    def made(self, frames: int) -> None:
        """The talker made them."""
        self._made += frames

    def taken(self, frames: int) -> int:
        """The caller took the sound of them; returns the credit to send, at least a quarter of the lead or none."""
        self._taken += frames
        return self._grant()

    def _grant(self) -> int:
        window = self._taken + self._lead
        allowed = window if self._caller is None else min(window, self._caller)
        is_worth_it = allowed - self.granted >= self._lead // 4 or allowed == self._caller
        more = max(0, allowed - self.granted) if is_worth_it else 0
        self.granted += more
        return more


class SpeechUtterance:
    """One utterance on its way through both stages. Made by `SpeechLine.submit`."""

    def __init__(self, line: SpeechLine, epoch: int, allowance: Allowance) -> None:
        self.epoch = epoch
        self._line = line
        self._allowance = allowance
        self._events: deque[Event] = deque()  # as many as frames may be made and not taken: bounded by the credit
        self._news = asyncio.Event()
        self._offsets: deque[tuple[int, int]] = deque()  # (first frame, text offset) of what the codec still has
        self._text_offset = 0
        self._frame_count = 0
        self._sample_count = 0
        self._text_token_count = 0
        self._seed: int | None = None
        self._codec_has_started = False
        self._talker_end: stream_pb2.Ended | None = None
        self._is_over = False

    # What the caller does.

    def feed(self, text: str) -> None:
        """More text. `Overloaded` when the talker does not take it."""
        if not self._is_over:
            self._line.talker.check_room()
            self._tell_talker(text=tts_lm_pb2.TextDelta(text=text))

    def flush(self) -> None:
        """The text is complete."""
        if not self._is_over:
            self._tell_talker(flush=stream_pb2.Flush())

    def credit(self, frames: int) -> None:
        """The caller allows so many frames more."""
        if frames < 1:
            raise InvalidRequest(f"credit.frames must be at least 1, not {frames}.", field="credit.frames")
        self._send_credit(self._allowance.credit(frames))

    def cancel(self) -> None:
        """Stop both stages; the end is told now, with what was made so far, and nothing after it."""
        self._finish(FinishReason.CANCELLED)

    async def __aiter__(self) -> AsyncIterator[Event]:
        while True:
            while not self._events:
                self._news.clear()
                await self._news.wait()
            event = self._events.popleft()
            yield event
            if isinstance(event, SpeechEnded):
                return
            if isinstance(event, Sound):
                self._send_credit(self._allowance.taken(event.chunk.frame_count))

    # What the stages answer.

    def hear_talker(self, response: tts_lm_pb2.GenerateResponse) -> None:
        """One answer of the talker about this utterance."""
        payload = response.WhichOneof("payload")
        if self._is_over:
            return
        if payload == "started":
            self._seed = response.started.seed
            self._start_when_both_have()
        elif payload == "frames":
            self._pass_on(response.frames)
        elif payload == "ended":
            self._text_token_count = response.ended.text_token_count
            self._talker_end = response.ended
            if self._seed is None:
                self._finish_as_talker()
            else:
                self._tell_codec(flush=stream_pb2.Flush())

    def hear_codec(self, response: codec_pb2.DecodeResponse) -> None:
        """One answer of the codec about this utterance."""
        payload = response.WhichOneof("payload")
        if self._is_over:
            return
        if payload == "started":
            self._codec_has_started = True
            self._start_when_both_have()
        elif payload == "audio":
            self._sound(response.audio)
        elif payload == "ended" and self._talker_end is not None and not response.ended.HasField("error"):
            self._finish_as_talker(response.ended)
        elif payload == "ended":
            self._finish(FinishReason.FAILED, error_of(response.ended.error))

    def lost(self, error: MeshError) -> None:
        """A stage is gone."""
        self._finish(FinishReason.FAILED, error)

    def _start_when_both_have(self) -> None:
        if self._seed is not None and self._codec_has_started:
            self._emit(Started(self._seed))

    def _pass_on(self, frames: tts_lm_pb2.Frames) -> None:
        self._allowance.made(frames.frame_count)
        self._frame_count += frames.frame_count
        self._text_token_count = frames.text_token_count
        self._offsets.append((frames.first_frame_index, frames.text_offset))
        index, number = frames.first_frame_index, frames.frame_count
        self._tell_codec(frames=codec_pb2.CodecFrames(first_frame_index=index, frame_count=number, codes=frames.codes))

    def _sound(self, chunk: codec_pb2.AudioChunk) -> None:
        self._sample_count += chunk.sample_count
        while self._offsets and self._offsets[0][0] < chunk.first_frame_index + chunk.frame_count:
            self._text_offset = max(self._text_offset, self._offsets.popleft()[1])
        self._emit(Sound(chunk, self._text_offset))

    def _finish_as_talker(self, codec_end: stream_pb2.Ended | None = None) -> None:
        """Both have ended, or the talker before it began: the talker's word is the one that counts."""
        end = self._talker_end
        assert end is not None
        compute_s = end.compute_time.ToNanoseconds() / 1e9
        if codec_end is not None:
            compute_s += codec_end.compute_time.ToNanoseconds() / 1e9
        error = error_of(end.error) if end.HasField("error") else None
        self._finish(FinishReason(end.reason), error, compute_s)

    def _finish(self, reason: FinishReason, error: MeshError | None = None, compute_s: float = 0.0) -> None:
        if self._is_over:
            return
        self._is_over = True
        end = End(reason, error, self._text_token_count, self._frame_count, self._sample_count, compute_s)
        if reason is FinishReason.CANCELLED:
            self._events.clear()
        self._emit(SpeechEnded(end))
        self._line.finished(self, both_ended=reason not in (FinishReason.CANCELLED, FinishReason.FAILED))

    def _emit(self, event: Event) -> None:
        self._events.append(event)
        self._news.set()

    def _send_credit(self, frames: int) -> None:
        if frames and not self._is_over:
            self._tell_talker(credit=stream_pb2.Credit(frames=frames))

    def _tell_talker(
        self,
        *,
        text: tts_lm_pb2.TextDelta | None = None,
        flush: stream_pb2.Flush | None = None,
        credit: stream_pb2.Credit | None = None,
    ) -> None:
        self._line.talker.send(tts_lm_pb2.GenerateRequest(epoch=self.epoch, text=text, flush=flush, credit=credit))

    def _tell_codec(
        self, *, frames: codec_pb2.CodecFrames | None = None, flush: stream_pb2.Flush | None = None
    ) -> None:
        self._line.codec.send(codec_pb2.DecodeRequest(epoch=self.epoch, frames=frames, flush=flush))
