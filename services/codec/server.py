"""The codec's edge: protobuf ↔ the engine's plain values. It also counts frames, since indices are the wire's.

No opinions; the rules of a stream are `common.duplex`'s.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from itertools import chain
from typing import Any, ClassVar

from voicemesh.codec.v1 import codec_pb2, codec_pb2_grpc
from voicemesh.stream.v1 import stream_pb2

from common.duplex import Edge
from common.errors import InvalidRequest, OutOfOrder, SequenceGap
from common.observer import Observer
from common.serving import Server
from common.stage import End, Stage, duration, replica, timestamp
from common.stream import Kind
from common.stream_config import StreamConfig
from common.telemetry import Milestone, SpanName, Work
from services.codec.types import (
    AudioBatch,
    DecodeSpec,
    EncodeSpec,
    Encoding,
    Ended,
    Engine,
    Event,
    Started,
    Utterance,
)

SERVICE = "voicemesh.codec.v1.CodecService"


def register(server: Server, engine: Engine, config: StreamConfig, max_reference_bytes: int = 64 * 2**20) -> None:
    """Serve `engine` there."""
    servicer = CodecServicer(server, engine, config, max_reference_bytes)
    server.add(codec_pb2_grpc.add_CodecServiceServicer_to_server, servicer, SERVICE)


class CodecServicer(codec_pb2_grpc.CodecServiceServicer):
    def __init__(self, server: Server, engine: Engine, config: StreamConfig, max_reference_bytes: int) -> None:
        self._engine = engine
        self._max_reference_bytes = max_reference_bytes
        self._edge = Edge(config.limits, server.telemetry, server.telemetry.observer("codec"), server.draining)

    async def Decode(self, requests: AsyncIterator[Any], context: Any) -> None:
        await self._edge.serve(DecodeStage(self._engine, self._edge.observer), requests, context)

    async def Encode(self, requests: AsyncIterator[codec_pb2.EncodeRequest], context: Any) -> codec_pb2.EncodeResponse:
        spec, payload = EncodeSpec(), bytearray()
        async for request in requests:
            if request.HasField("format"):
                form = request.format
                spec = EncodeSpec(encoding_of(form), form.sample_rate_hz, form.channel_count)
            payload += request.payload
            if len(payload) > self._max_reference_bytes:
                sentence = f"Reference audio may have {self._max_reference_bytes} bytes."
                raise InvalidRequest(sentence, reason="TOO_LARGE")
        voice = await self._engine.encode(spec, bytes(payload))
        return codec_pb2.EncodeResponse(
            codes=chain.from_iterable(voice.codes),
            frame_count=len(voice.codes),
            speaker_vector=voice.speaker_vector or (),
        )

    async def GetCodec(self, request: codec_pb2.GetCodecRequest, context: Any) -> codec_pb2.GetCodecResponse:
        info = self._engine.info()
        known = codec_pb2.GetCodecResponse.DESCRIPTOR.fields_by_name
        return codec_pb2.GetCodecResponse(**{name: getattr(info, name) for name in known})


class Decoding:
    """One utterance with the caller's count of its frames."""

    def __init__(self, utterance: Utterance, codebook_count: int, sample_rate_hz: int, observer: Observer) -> None:
        self.utterance = utterance
        self.sample_rate_hz = sample_rate_hz
        self.first_frame_index = 0
        self._next_index: int | None = None
        self._codebook_count = codebook_count
        self._observer = observer

    def feed(self, message: codec_pb2.CodecFrames) -> None:
        """Pass on what is new of it. `SequenceGap` when frames are missing, `InvalidRequest` for odd counts."""
        first, frames = message.first_frame_index, unflattened(message.codes, self._codebook_count)
        if len(frames) != message.frame_count or first < 0:
            raise InvalidRequest(
                f"{message.frame_count} frames from {first} on need {self._codebook_count} codes each."
            )
        if self._next_index is None:
            self.first_frame_index = self._next_index = first
        if first > self._next_index:
            raise SequenceGap(f"Frame {self._next_index} comes next, not {first}.", expected=str(self._next_index))
        known = self._next_index - first
        if known:
            self._observer.repeated(min(known, len(frames)))
        if frames[known:]:
            self.utterance.feed(frames[known:])
            self._next_index = first + len(frames)

    def cancel(self) -> None:
        self.utterance.cancel()

    def __aiter__(self) -> AsyncIterator[Event]:
        return aiter(self.utterance)


class DecodeStage(Stage[codec_pb2.DecodeRequest, codec_pb2.DecodeResponse, Decoding]):
    """What the messages of `Decode` mean."""

    kinds: ClassVar = {
        "start": Kind.START,
        "frames": Kind.INPUT,
        "flush": Kind.FLUSH,
        "stop": Kind.STOP,
        "reset": Kind.RESET,
    }
    span_name = SpanName.CODEC_DECODE
    first_milestone = Milestone.CODEC_FIRST_PCM

    def __init__(self, engine: Engine, observer: Observer) -> None:
        self._engine = engine
        self._observer = observer
        self._info = engine.info()
        self._before: Decoding | None = None
        self._now: Decoding | None = None

    def trace(self, request: codec_pb2.DecodeRequest) -> stream_pb2.TraceContext:
        return request.start.trace

    def submit(self, request: codec_pb2.DecodeRequest, work: Work) -> Decoding:
        start, form = request.start, request.start.format
        if start.continue_state and self._before is None:
            raise OutOfOrder("There is no utterance before this one whose state it could continue.")
        spec = DecodeSpec(
            encoding_of(form),
            form.sample_rate_hz,
            form.channel_count,
            unflattened(start.prime_codes, self._info.codebook_count),
            self._before.utterance if start.continue_state and self._before is not None else None,
        )
        utterance = self._engine.submit(spec)
        rate = form.sample_rate_hz or self._info.sample_rate_hz
        self._now = Decoding(utterance, self._info.codebook_count, rate, self._observer)
        self._before = self._now
        return self._now

    def feed(self, utterance: Decoding, request: codec_pb2.DecodeRequest) -> None:
        utterance.feed(request.frames)

    def flush(self, utterance: Decoding) -> None:
        utterance.utterance.flush()

    def end_of(self, event: object) -> End | None:
        if not isinstance(event, Ended):
            return None
        return End(event.reason, event.error, 0, event.frame_count, event.sample_count, event.compute_s)

    def is_product(self, event: object) -> bool:
        return isinstance(event, AudioBatch)

    def audio_s(self, end: End) -> float:
        return end.frame_count / self._info.frame_rate_hz

    def slots(self) -> tuple[int, int]:
        info = self._engine.info()
        return info.slot_count - info.free_slot_count, info.slot_count

    def response(self, event: Started | AudioBatch) -> codec_pb2.DecodeResponse:
        if isinstance(event, Started):
            return codec_pb2.DecodeResponse(started=codec_pb2.DecodeStarted(replica=replica()))
        now = self._now
        assert now is not None, "sound comes from an utterance that was submitted"
        audio = codec_pb2.AudioChunk(
            first_sample_offset=event.first_sample_offset,
            sample_count=event.sample_count,
            payload=event.payload,
            first_frame_index=event.first_frame_index + now.first_frame_index,
            frame_count=event.frame_count,
            duration=duration(event.sample_count / now.sample_rate_hz),
            produced_time=timestamp(event.produced_time_s),
        )
        return codec_pb2.DecodeResponse(audio=audio)

    def ended(self, ended: stream_pb2.Ended, event: object) -> codec_pb2.DecodeResponse:
        return codec_pb2.DecodeResponse(ended=ended)

    def reset_done(self) -> codec_pb2.DecodeResponse:
        return codec_pb2.DecodeResponse(reset_done=codec_pb2.DecodeResetDone())

    def forget(self) -> None:
        self._before = None


def encoding_of(form: stream_pb2.AudioFormat) -> Encoding:
    """The format's encoding in the engine's words."""
    try:
        return Encoding(form.encoding)
    except ValueError:
        raise InvalidRequest(f"There is no audio encoding {form.encoding}.") from None


def unflattened(codes: Sequence[int], codebook_count: int) -> tuple[tuple[int, ...], ...]:
    """Frame-major codes → frames. `InvalidRequest` when the last one is not whole."""
    if len(codes) % codebook_count:
        raise InvalidRequest(f"A frame is {codebook_count} codes; {len(codes)} are not a whole number of frames.")
    flat = tuple(codes)
    return tuple(flat[i : i + codebook_count] for i in range(0, len(flat), codebook_count))
