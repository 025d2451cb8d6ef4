"""The talker's edge: protobuf ↔ the engine's plain values. No opinions; the rules of a stream are `common.duplex`'s."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from itertools import chain
from typing import Any, ClassVar

from voicemesh.stream.v1 import stream_pb2
from voicemesh.tts_lm.v1 import tts_lm_pb2, tts_lm_pb2_grpc

from common.duplex import Edge
from common.errors import InvalidRequest, UnknownName
from common.serving import Server
from common.stage import End, Stage, replica, timestamp
from common.stream import Kind
from common.stream_config import StreamConfig
from common.telemetry import Milestone, SpanName, Work
from common.voice_store import StoredVoice, VoiceStore
from services.tts_lm.types import (
    CloneVoice,
    Ended,
    Engine,
    FrameBatch,
    Layout,
    ResumePoint,
    SamplingParams,
    Started,
    Utterance,
    UtteranceRequest,
)

SERVICE = "voicemesh.tts_lm.v1.TtsLmService"
_LAYOUTS: dict[int, Layout] = {
    tts_lm_pb2.TEXT_LAYOUT_UNSPECIFIED: "streaming",
    tts_lm_pb2.TEXT_LAYOUT_STREAMING: "streaming",
    tts_lm_pb2.TEXT_LAYOUT_WHOLE: "whole",
}
_SAMPLING_FIELDS = tuple(tts_lm_pb2.Sampling.DESCRIPTOR.fields_by_name)


def register(server: Server, engine: Engine, config: StreamConfig, voices: VoiceStore | None = None) -> None:
    """Serve `engine` there; `voices` are those that were added beside the model's own."""
    servicer = TtsLmServicer(server, engine, config, voices)
    server.add(tts_lm_pb2_grpc.add_TtsLmServiceServicer_to_server, servicer, SERVICE)


class TtsLmServicer(tts_lm_pb2_grpc.TtsLmServiceServicer):
    def __init__(self, server: Server, engine: Engine, config: StreamConfig, voices: VoiceStore | None) -> None:
        self._engine = engine
        self._voices = voices
        self._edge = Edge(config.limits, server.telemetry, server.telemetry.observer("tts_lm"), server.draining)

    async def Generate(self, requests: AsyncIterator[Any], context: Any) -> None:
        await self._edge.serve(GenerateStage(self._engine, self._voices), requests, context)

    async def GetModel(self, request: tts_lm_pb2.GetModelRequest, context: Any) -> tts_lm_pb2.GetModelResponse:
        return tts_lm_pb2.GetModelResponse(**vars(self._engine.info()))

    async def ListVoices(self, request: tts_lm_pb2.ListVoicesRequest, context: Any) -> tts_lm_pb2.ListVoicesResponse:
        voices = [tts_lm_pb2.VoiceInfo(**vars(voice)) for voice in self._engine.voices()]
        if self._voices is not None and self._engine.info().supports_clone:
            voices += [tts_lm_pb2.VoiceInfo(name=name, description="added") for name in self._voices.names()]
        return tts_lm_pb2.ListVoicesResponse(voices=voices)


class GenerateStage(Stage[tts_lm_pb2.GenerateRequest, tts_lm_pb2.GenerateResponse, Utterance]):
    """What the messages of `Generate` mean."""

    kinds: ClassVar = {
        "start": Kind.START,
        "text": Kind.INPUT,
        "credit": Kind.SUPPLEMENT,
        "flush": Kind.FLUSH,
        "stop": Kind.STOP,
        "reset": Kind.RESET,
    }
    span_name = SpanName.TTS_LM_GENERATE
    first_milestone = Milestone.TTS_FIRST_FRAME

    def __init__(self, engine: Engine, voices: VoiceStore | None = None) -> None:
        self._engine = engine
        self._voices = voices

    def trace(self, request: tts_lm_pb2.GenerateRequest) -> stream_pb2.TraceContext:
        return request.start.trace

    def submit(self, request: tts_lm_pb2.GenerateRequest, work: Work) -> Utterance:
        return self._engine.submit(utterance_request(request.start, self._stored))

    def _stored(self, name_or_id: str) -> StoredVoice | None:
        if self._voices is None or not self._engine.info().supports_clone:
            return None
        return self._voices.find(name_or_id)

    def feed(self, utterance: Utterance, request: tts_lm_pb2.GenerateRequest) -> None:
        if request.WhichOneof("payload") == "credit":
            utterance.credit(_at_least_one(request.credit.frames, "credit.frames"))
            return
        kind = request.text.WhichOneof("kind")
        if kind is None:
            raise InvalidRequest("A text delta holds a string or ids; this one holds neither.")
        utterance.feed(request.text.text if kind == "text" else tuple(request.text.ids.ids))

    def flush(self, utterance: Utterance) -> None:
        utterance.flush()

    def end_of(self, event: object) -> End | None:
        if not isinstance(event, Ended):
            return None
        return End(event.reason, event.error, event.text_token_count, event.frame_count, compute_s=event.compute_s)

    def is_product(self, event: object) -> bool:
        return isinstance(event, FrameBatch)

    def audio_s(self, end: End) -> float:
        return end.frame_count / self._engine.info().frame_rate_hz

    def slots(self) -> tuple[int, int]:
        info = self._engine.info()
        return info.slot_count - info.free_slot_count, info.slot_count

    def response(self, event: Started | FrameBatch) -> tts_lm_pb2.GenerateResponse:
        if isinstance(event, Started):
            started = tts_lm_pb2.GenerateStarted(
                seed=event.seed, prefix_cache_hit=event.prefix_cache_hit, replica=replica()
            )
            return tts_lm_pb2.GenerateResponse(started=started)
        frames = tts_lm_pb2.Frames(
            first_frame_index=event.first_frame_index,
            frame_count=len(event.codes),
            codes=chain.from_iterable(event.codes),
            text_token_count=event.text_token_count,
            produced_time=timestamp(event.produced_time_s),
            text_offset=event.text_offset,
        )
        return tts_lm_pb2.GenerateResponse(frames=frames)

    def ended(self, ended: stream_pb2.Ended, event: object) -> tts_lm_pb2.GenerateResponse:
        return tts_lm_pb2.GenerateResponse(ended=ended)

    def reset_done(self) -> tts_lm_pb2.GenerateResponse:
        return tts_lm_pb2.GenerateResponse(reset_done=tts_lm_pb2.ResetDone())


def utterance_request(
    start: tts_lm_pb2.GenerateStart, stored: Callable[[str], StoredVoice | None] = lambda name: None
) -> UtteranceRequest:
    """A `GenerateStart` in the engine's words; `stored` finds an added voice by name or id.

    `InvalidRequest` for what no engine could mean, `UnknownName` for an id that is not stored."""
    if start.text_layout not in _LAYOUTS:
        raise InvalidRequest(f"There is no text layout {start.text_layout}.")
    for field in ("max_frames", "max_lead_frames"):
        if getattr(start, field) < 0:
            raise InvalidRequest(f"{field} counts frames and cannot be negative.", field=field)
    resume = ResumePoint(tuple(start.resume.codes), start.resume.text_token_count) if start.HasField("resume") else None
    text_timeout_s = start.text_timeout.ToNanoseconds() / 1e9 if start.HasField("text_timeout") else None
    if text_timeout_s is not None and text_timeout_s <= 0:
        raise InvalidRequest("text_timeout is a time to wait and must be positive.", field="text_timeout")
    return UtteranceRequest(
        voice=_voice(start.voice, stored) if start.HasField("voice") else None,
        language=start.language,
        instruct=start.instruct,
        layout=_LAYOUTS[start.text_layout],
        sampling=_sampling(start.sampling),
        packet_ramp=tuple(_at_least_one(size, "packet_ramp.frames") for size in start.packet_ramp.frames) or (1,),
        max_frames=start.max_frames or None,
        max_lead_frames=start.max_lead_frames or None,
        reference_behaviour=start.reference_behaviour,
        resume=resume,
        text_timeout_s=text_timeout_s,
    )


def _voice(voice: tts_lm_pb2.Voice, stored: Callable[[str], StoredVoice | None]) -> str | CloneVoice:
    kind = voice.WhichOneof("kind")
    if kind is None:
        raise InvalidRequest("A voice is a name or a clone; this one is neither.")
    wanted = voice.name if kind == "name" else voice.clone.voice_id
    added = stored(wanted) if wanted else None
    if added is not None:
        return CloneVoice(added.speaker_vector, tuple(chain.from_iterable(added.codes)), added.reference_text)
    if kind == "name":
        return voice.name
    if wanted:
        raise UnknownName(f"No voice is stored as {wanted!r}.")
    return CloneVoice(tuple(voice.clone.speaker_vector), tuple(voice.clone.codes), voice.clone.reference_text)


def _sampling(sampling: tts_lm_pb2.Sampling) -> SamplingParams:
    given = {name: getattr(sampling, name) for name in _SAMPLING_FIELDS if name != "greedy" and sampling.HasField(name)}
    return SamplingParams(greedy=sampling.greedy, **given)


def _at_least_one(count: int, field: str) -> int:
    if count < 1:
        raise InvalidRequest(f"{field} must be at least 1, not {count}.", field=field)
    return count
