"""The gateway's edge: `SpeechService` over `SpeechLine`s, `ConversationService` over conversations."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any, ClassVar

from voicemesh.gateway.v1 import gateway_pb2, gateway_pb2_grpc
from voicemesh.stream.v1 import stream_pb2

from common.duplex import Edge
from common.serving import Server
from common.stage import End, Stage
from common.stream import Kind
from common.telemetry import Milestone, SpanName, Work
from common.voice_store import VoiceStore
from services.gateway.access import spend_text
from services.gateway.access.grpc_door import admission
from services.gateway.access.tls import stage_tls
from services.gateway.clients import Stages
from services.gateway.config import GatewayConfig
from services.gateway.http import HttpServer
from services.gateway.livekit.rooms import Rooms
from services.gateway.media.webrtc import WebRtc
from services.gateway.pipeline import SpeechLine
from services.gateway.realtime.board import LatencyBoard
from services.gateway.session.keeping import Conversations
from services.gateway.session.ports import SessionEvent, Sessions
from services.gateway.session.servicer import ConversationServicer
from services.gateway.utterance import Event, Sound, SpeechEnded, SpeechUtterance, Started

SPEECH = "voicemesh.gateway.v1.SpeechService"
CONVERSATION = "voicemesh.gateway.v1.ConversationService"


class Gateway:
    """What lives as long as the service: warm channels to the stages, and what is known of them."""

    def __init__(self, config: GatewayConfig) -> None:
        self._config = config
        self._watch: asyncio.Task[None] | None = None
        self.http: HttpServer | None = None
        self.sessions: Sessions | None = None  # once it has started
        self.conversations: Conversations | None = None  # where they are offered
        self.webrtc: WebRtc | None = None
        self.rooms = Rooms(config, lambda: self.sessions)
        self.board = LatencyBoard()

    async def start(self) -> None:
        """Dial and look once. A stage that is not there yet is told to whoever asks for speech, not waited for."""
        config = self._config
        self.stages = Stages(
            config.tts_lm_address,
            config.codec_address,
            config.stall_timeout_s,
            brain_address=config.brain_address,
            tls=stage_tls(config),
        )
        self.time = asyncio.get_running_loop().time
        if self.conversations is not None:
            self.sessions = self.conversations.start(self.stages, self.conversation_line, self._watched)
            if config.http and config.webrtc:
                self.webrtc = WebRtc(config.network)
        if self.http is not None:
            await self.http.start()
        await self.stages.look()
        await self.rooms.start()
        self._watch = asyncio.create_task(self.stages.watch())  # ends in `close`, which raises what it raised

    def _watched(self, session_id: str, transport: str, event: SessionEvent) -> None:
        self.board.tell(session_id, transport, event, time.time())

    def line(self) -> SpeechLine:
        """A way through the stages for one caller."""
        return SpeechLine(self.stages, self._config.terms, VoiceStore(self._config.voice_store))

    def conversation_line(self) -> SpeechLine:
        """The same for one conversation, which wants little made in advance."""
        return SpeechLine(self.stages, self._config.conversation_terms, VoiceStore(self._config.voice_store))

    def stage(self) -> SynthesizeStage:
        """The meaning of one caller's stream, over whatever it comes."""
        return SynthesizeStage(self.line())

    async def close(self) -> None:
        """Hang up. Also after a `start` that failed half-way."""
        await self.rooms.close()
        if self.conversations is not None:
            await self.conversations.close()
        if self.webrtc is not None:
            await self.webrtc.close()
        if self.http is not None:
            await self.http.close()
        if self._watch is not None:
            self._watch.cancel()
            await asyncio.wait([self._watch])
        if hasattr(self, "stages"):
            await self.stages.close()
        if self._watch is not None and not self._watch.cancelled():
            self._watch.result()


def register(server: Server, gateway: Gateway, config: GatewayConfig) -> None:
    """Serve both services there."""
    edge = Edge(config.limits, server.telemetry, server.telemetry.observer("gateway"), server.draining)
    door = config.door()
    server.admission = admission(door)
    if config.http:
        gateway.http = HttpServer(config, gateway, server, edge, door)
    speech = SpeechServicer(gateway, edge)
    server.add(gateway_pb2_grpc.add_SpeechServiceServicer_to_server, speech, SPEECH)
    gateway.conversations = conversations = Conversations(config.conversations, server.telemetry, server.draining)
    conversation = ConversationServicer(lambda: conversations.registry, config.limits, edge.observer)
    server.add(gateway_pb2_grpc.add_ConversationServiceServicer_to_server, conversation, CONVERSATION)


class SpeechServicer(gateway_pb2_grpc.SpeechServiceServicer):
    def __init__(self, gateway: Gateway, edge: Edge) -> None:
        self._gateway = gateway
        self._edge = edge

    async def Synthesize(self, requests: AsyncIterator[Any], context: Any) -> None:
        await self._edge.serve(self._gateway.stage(), requests, context)

    async def ListVoices(self, request: gateway_pb2.ListVoicesRequest, context: Any) -> gateway_pb2.ListVoicesResponse:
        return gateway_pb2.ListVoicesResponse(voices=await self._gateway.stages.voices())


class SynthesizeStage(Stage[gateway_pb2.SynthesizeRequest, gateway_pb2.SynthesizeResponse, SpeechUtterance]):
    """What the messages of `Synthesize` mean."""

    kinds: ClassVar = {
        "start": Kind.START,
        "text": Kind.INPUT,
        "boundary": Kind.INPUT,
        "credit": Kind.SUPPLEMENT,
        "flush": Kind.FLUSH,
        "stop": Kind.STOP,
        "reset": Kind.RESET,
    }
    span_name = SpanName.GATEWAY_SYNTHESIZE
    first_milestone = Milestone.CODEC_FIRST_PCM
    numbers_utterances = False

    def __init__(self, line: SpeechLine) -> None:
        self._line = line
        self._format = stream_pb2.AudioFormat()

    def trace(self, request: gateway_pb2.SynthesizeRequest) -> stream_pb2.TraceContext:
        return request.start.speech.trace

    def submit(self, request: gateway_pb2.SynthesizeRequest, work: Work) -> SpeechUtterance:
        self._format = _resolved(request.start.format)
        return self._line.submit(request.start, work.trace_parent(), self.session_id, work.milestone)

    def feed(self, utterance: SpeechUtterance, request: gateway_pb2.SynthesizeRequest) -> None:
        payload = request.WhichOneof("payload")
        if payload == "credit":
            utterance.credit(request.credit.frames)
        elif payload == "boundary":
            utterance.boundary()
        else:
            spend_text(len(request.text))
            utterance.feed(request.text)

    def flush(self, utterance: SpeechUtterance) -> None:
        utterance.flush()

    def end_of(self, event: Event) -> End | None:
        return event.end if isinstance(event, SpeechEnded) else None

    def is_product(self, event: Event) -> bool:
        return isinstance(event, Sound)

    def response(self, event: Started | Sound) -> gateway_pb2.SynthesizeResponse:
        if isinstance(event, Started):
            started = gateway_pb2.SynthesizeStarted(seed=event.seed, format=self._format)
            return gateway_pb2.SynthesizeResponse(started=started)
        chunk = event.chunk
        audio = gateway_pb2.SpeechAudio(
            first_sample_offset=chunk.first_sample_offset,
            sample_count=chunk.sample_count,
            payload=chunk.payload,
            duration=chunk.duration,
            first_frame_index=chunk.first_frame_index,
            frame_count=chunk.frame_count,
            text_offset=event.text_offset,
            produced_time=chunk.produced_time,
        )
        return gateway_pb2.SynthesizeResponse(audio=audio)

    def ended(self, ended: stream_pb2.Ended, event: object) -> gateway_pb2.SynthesizeResponse:
        return gateway_pb2.SynthesizeResponse(ended=ended)

    def reset_done(self) -> gateway_pb2.SynthesizeResponse:
        return gateway_pb2.SynthesizeResponse(reset_done=gateway_pb2.SynthesizeResetDone())

    def forget(self) -> None:
        self._line.reset()

    async def run(self) -> None:
        await self._line.run()


def _resolved(form: stream_pb2.AudioFormat) -> stream_pb2.AudioFormat:
    """The format with the contract's defaults in the place of what was left open."""
    return stream_pb2.AudioFormat(
        encoding=form.encoding or stream_pb2.AUDIO_ENCODING_PCM_S16LE,
        sample_rate_hz=form.sample_rate_hz or 24000,
        channel_count=form.channel_count or 1,
    )
