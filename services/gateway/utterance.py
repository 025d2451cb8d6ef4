"""One utterance between the caller and the stages: what was allowed, what was said, how it ends.

text ──▶ talker ──frames──▶ decoder ──▶ sound
          ▲ credit: what may be made and not yet taken by the caller, so that nothing piles up between them
"""

from __future__ import annotations

import asyncio
import time
from array import array
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

from voicemesh.codec.v1 import codec_pb2
from voicemesh.gateway.v1 import gateway_pb2
from voicemesh.stream.v1 import stream_pb2
from voicemesh.tts_lm.v1 import tts_lm_pb2

from common.errors import InvalidRequest, MeshError
from common.stage import End
from common.status import cause_of
from common.stream import FinishReason
from common.telemetry import Milestone, TraceParent
from services.gateway.allowance import Allowance
from services.gateway.clients import Stages, StageStream
from services.gateway.decoder import Decoder
from services.gateway.pace import Pace
from services.gateway.script import Script
from services.gateway.search import Patience
from services.gateway.speakable import Normalisation, SpeakableText
from services.gateway.talker import Talker


@dataclass(frozen=True)
class Terms:
    """What the gateway's configuration says of every utterance."""

    packet_ramp: tuple[int, ...] = (1, 2, 4)
    lead_frames: int = 128
    max_text_characters: int = 65536
    text_timeout_s: float | None = None
    steady_characters: int | None = None
    paced_lead_s: float = 0.4
    normalise: Normalisation = "off"
    patience: Patience = field(default_factory=Patience)


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


class SpeechUtterance:
    """One utterance on its way through both stages. Somebody must `run` it; the other methods never wait."""

    def __init__(
        self,
        stages: Stages,
        terms: Terms,
        request: gateway_pb2.SynthesizeStart,
        *,
        session_id: str = "",
        epoch: int = 0,
        trace: TraceParent = ("", ""),
        milestone: Callable[[Milestone], None] = lambda milestone: None,
    ) -> None:
        for count in ("max_frames", "max_lead_frames"):
            if getattr(request.speech, count) < 0:
                raise InvalidRequest(f"{count} counts frames and cannot be negative.", field=count)
        speech = tts_lm_pb2.GenerateStart()
        speech.CopyFrom(request.speech)
        self._text_timeout_s = _text_timeout_s(speech) or terms.text_timeout_s
        speech.ClearField("text_timeout")
        context = stream_pb2.TraceContext(traceparent=trace[0], tracestate=trace[1])
        speech.trace.CopyFrom(context)
        if not speech.packet_ramp.frames:
            speech.packet_ramp.frames.extend(terms.packet_ramp)
        prime = [*speech.voice.clone.codes, *speech.resume.codes]
        decode = codec_pb2.DecodeStart(format=request.format, prime_codes=prime, trace=context)
        self._allowance = Allowance(terms.lead_frames, speech.max_lead_frames)
        self._model: tts_lm_pb2.GetModelResponse = stages.tts_lm.info or tts_lm_pb2.GetModelResponse()
        self._known = frozenset(self._model.speakable_characters)
        steady_characters = _steady_characters(self._model, terms, speech)
        script = Script(self._text_timeout_s is not None, terms.max_text_characters, steady_characters)
        self._talker = Talker(
            stages, session_id, epoch, speech, script, self._allowance, terms.patience, self, self._leave
        )
        self._decoder = Decoder(stages, session_id, epoch, decode, terms.patience, self, self._leave)
        self._pace = Pace(request.format, terms.paced_lead_s) if request.paced else None
        self._speakable: SpeakableText | None = None
        if request.speakable_filter:
            self._speakable = SpeakableText(terms.normalise, speech.language)
        self._milestone = milestone
        self._events: deque[Event] = deque()  # as many as frames may be made and not taken: bounded by the credit
        self._news = asyncio.Event()
        self._offsets: deque[tuple[int, int]] = deque()  # (frames made before, text offset) of what the codec still has
        self._text_offset = 0
        self._passed_on = 0  # frames
        self._seed: int | None = None
        self._codec_has_started = False
        self._is_over = False
        self._task: asyncio.Task[None] | None = None
        self._group: asyncio.TaskGroup | None = None

    # What the caller does.

    def feed(self, text: str) -> None:
        """More text. `InvalidRequest` when it is too long, or the voice never learned to say it."""
        if not self._is_over:
            text = text if self._speakable is None else self._speakable.feed(text)
            if self._known and not self._known.issuperset(text):
                raise self._unspeakable(next(character for character in text if character not in self._known))
            self._talker.feed(text)

    def _unspeakable(self, character: str) -> InvalidRequest:
        """What the stage would say of it, but before anything is spoken: of a text in parts it sees one at a time."""
        languages = ", ".join(language.capitalize() for language in self._model.languages)
        sentence = f"This voice cannot say {character!r}. It speaks {languages}."
        return InvalidRequest(sentence, reason="UNSUPPORTED", field="text", character=f"U+{ord(character):04X}")

    def boundary(self) -> None:
        """What was said so far is a whole: speak it to its end, and what follows as the next."""
        if self._is_over:
            return
        if self._speakable is not None:
            self._talker.feed(self._speakable.flush())
        self._talker.close_segment()

    def flush(self) -> None:
        """The text is complete."""
        if self._is_over:
            return
        if self._speakable is not None:
            self._talker.feed(self._speakable.flush())
        self._talker.flush()

    def credit(self, frames: int) -> None:
        """The caller allows so many frames more."""
        if frames < 1:
            raise InvalidRequest(f"credit.frames must be at least 1, not {frames}.", field="credit.frames")
        if not self._is_over:
            self._talker.credit(self._allowance.credit(frames))

    def cancel(self) -> None:
        """Stop both stages; the end is told now, with what was made so far, and nothing after it."""
        if self._is_over:
            return
        self._events.clear()
        self._finish(FinishReason.CANCELLED)
        self._talker.hang_up()
        self._decoder.hang_up()
        if self._task is not None:
            self._task.cancel()

    async def __aiter__(self) -> AsyncIterator[Event]:
        while True:
            event = await self._next()
            yield event
            if isinstance(event, SpeechEnded):
                return
            if isinstance(event, Sound) and not self._is_over:
                self._talker.credit(self._allowance.taken(event.chunk.frame_count))

    async def _next(self) -> Event:
        """The next event: when it comes, or on the clock when the utterance is paced."""
        loop = asyncio.get_running_loop()
        pace = self._pace
        while True:
            due_s = None if pace is None else pace.dry_s
            if self._events:
                event = self._events[0]
                due_s = pace.due_s if pace is not None and isinstance(event, Sound) else 0.0
                if due_s <= loop.time():
                    return self._taken()
            elif pace is not None and due_s is not None and due_s <= loop.time():
                return Sound(pace.silence(time.time()), self._text_offset)
            self._news.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout_at(due_s):
                    await self._news.wait()

    def _taken(self) -> Event:
        event = self._events.popleft()
        if self._pace is not None and isinstance(event, Sound):
            self._pace.deliver(event.chunk, asyncio.get_running_loop().time())
        elif self._pace is not None and isinstance(event, SpeechEnded):
            samples = event.end.sample_count + self._pace.silent_samples
            return SpeechEnded(replace(event.end, sample_count=samples))
        return event

    # What happens.

    async def run(self) -> None:
        """Carry it through both stages. Never raises what went wrong: the last event says it."""
        if self._is_over:
            return
        self._task = asyncio.current_task()
        try:
            async with asyncio.TaskGroup() as group:
                self._group = group
                late = group.create_task(self._close_when_late())
                decoding = group.create_task(self._decoder.run())
                talked = await self._talker.run()
                late.cancel()
                self._decoder.flush()
                await decoding
                self._finish(talked.reason)
        except* MeshError as lost:
            error = cause_of(lost)
            assert isinstance(error, MeshError)
            self._finish(FinishReason.FAILED, error)

    async def _close_when_late(self) -> None:
        if self._text_timeout_s is not None:
            await self._talker.close_when_late(self._text_timeout_s)

    def _leave(self, stream: StageStream[Any, Any]) -> None:
        assert self._group is not None, "streams are opened while it runs"
        self._group.create_task(stream.leave())

    def talker_started(self, seed: int) -> None:
        """tts_lm has a slot for it."""
        self._seed = seed
        self._start_when_both_have()

    def codec_started(self) -> None:
        """codec has one too."""
        self._codec_has_started = True
        self._start_when_both_have()

    def frames(self, codes: array[int], frame_count: int, text_offset: int) -> None:
        """The talker made frames."""
        if self._passed_on == 0:
            self._milestone(Milestone.TTS_FIRST_FRAME)
        if self._speakable is not None:
            text_offset = self._speakable.original(text_offset)
        self._offsets.append((self._passed_on, text_offset))
        self._passed_on += frame_count
        self._decoder.frames(codes, frame_count)

    def sound(self, chunk: codec_pb2.AudioChunk) -> None:
        """The codec made sound."""
        while self._offsets and self._offsets[0][0] < chunk.first_frame_index + chunk.frame_count:
            self._text_offset = max(self._text_offset, self._offsets.popleft()[1])
        self._emit(Sound(chunk, self._text_offset))

    def _start_when_both_have(self) -> None:
        if self._seed is not None and self._codec_has_started:
            self._emit(Started(self._seed))

    def _finish(self, reason: FinishReason, error: MeshError | None = None) -> None:
        if self._is_over:
            return
        self._is_over = True
        talked = self._talker.talked
        compute_s = talked.compute_s + self._decoder.compute_s
        end = End(reason, error, talked.text_token_count, talked.frame_count, self._decoder.sample_count, compute_s)
        self._emit(SpeechEnded(end))

    def _emit(self, event: Event) -> None:
        self._events.append(event)
        self._news.set()


def _steady_characters(model: tts_lm_pb2.GetModelResponse, terms: Terms, speech: tts_lm_pb2.GenerateStart) -> int:
    """As configured, or as the model says of itself; never where the caller asks for what the reference would do, or
    goes on with what others made."""
    if speech.reference_behaviour or speech.resume.codes:
        return 0
    if terms.steady_characters is not None:
        return terms.steady_characters
    return int(model.steady_character_count)


def _text_timeout_s(speech: tts_lm_pb2.GenerateStart) -> float | None:
    if not speech.HasField("text_timeout"):
        return None
    text_timeout_s = speech.text_timeout.ToNanoseconds() / 1e9
    if text_timeout_s <= 0:
        raise InvalidRequest("text_timeout is a time to wait and must be positive.", field="text_timeout")
    return text_timeout_s
