"""The brain's edge: protobuf ↔ the engine's plain values. No opinions; the rules of a stream are `common.duplex`'s."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, ClassVar

from google.protobuf.json_format import MessageToDict, ParseDict
from google.protobuf.struct_pb2 import Struct
from voicemesh.brain.v1 import brain_pb2, brain_pb2_grpc
from voicemesh.stream.v1 import stream_pb2

from common.duplex import Edge
from common.errors import InvalidRequest
from common.serving import Server
from common.stage import End, Stage, replica, timestamp
from common.stream import Kind
from common.stream_config import StreamConfig
from common.telemetry import Milestone, SpanName, Work
from services.brain.types import (
    AudioFormat,
    BrainSampling,
    Encoding,
    Ended,
    Engine,
    Message,
    Role,
    Started,
    TextPiece,
    Tool,
    ToolCall,
    ToolCallRequest,
    Transcript,
    Turn,
    TurnRequest,
)

SERVICE = "voicemesh.brain.v1.BrainService"
_ROLES = {
    brain_pb2.ROLE_USER: Role.USER,
    brain_pb2.ROLE_ASSISTANT: Role.ASSISTANT,
    brain_pb2.ROLE_TOOL: Role.TOOL,
    brain_pb2.ROLE_SYSTEM: Role.SYSTEM,
}
_ENCODINGS: dict[int, Encoding] = {
    stream_pb2.AUDIO_ENCODING_UNSPECIFIED: "pcm_s16le",
    stream_pb2.AUDIO_ENCODING_PCM_S16LE: "pcm_s16le",
    stream_pb2.AUDIO_ENCODING_PCM_F32LE: "pcm_f32le",
    stream_pb2.AUDIO_ENCODING_MULAW: "mulaw",
}


def register(server: Server, engine: Engine, config: StreamConfig) -> None:
    """Serve `engine` there."""
    server.add(brain_pb2_grpc.add_BrainServiceServicer_to_server, BrainServicer(server, engine, config), SERVICE)


class BrainServicer(brain_pb2_grpc.BrainServiceServicer):
    def __init__(self, server: Server, engine: Engine, config: StreamConfig) -> None:
        self._engine = engine
        self._edge = Edge(config.limits, server.telemetry, server.telemetry.observer("brain"), server.draining)

    async def Respond(self, requests: AsyncIterator[Any], context: Any) -> None:
        await self._edge.serve(RespondStage(self._engine, context), requests, context)

    async def GetBrain(self, request: brain_pb2.GetBrainRequest, context: Any) -> brain_pb2.GetBrainResponse:
        return brain_pb2.GetBrainResponse(**vars(self._engine.info()))


class RespondStage(Stage[brain_pb2.RespondRequest, brain_pb2.RespondResponse, Turn]):
    """What the messages of `Respond` mean. An epoch holds one turn, and `finish` is its flush."""

    kinds: ClassVar = {
        "start": Kind.START,
        "text": Kind.INPUT,
        "audio": Kind.INPUT,
        "tool_result": Kind.SUPPLEMENT,
        "finish": Kind.FLUSH,
        "stop": Kind.STOP,
    }
    span_name = SpanName.BRAIN_RESPOND
    first_milestone = Milestone.BRAIN_FIRST_TOKEN
    one_per_epoch = True
    numbers_utterances = False

    def __init__(self, engine: Engine, context: Any) -> None:
        self._engine = engine
        self._context = context

    def trace(self, request: brain_pb2.RespondRequest) -> stream_pb2.TraceContext:
        return request.start.trace

    def submit(self, request: brain_pb2.RespondRequest, work: Work) -> Turn:
        return self._engine.submit(turn_request(request.start, self._context.time_remaining()))

    def feed(self, utterance: Turn, request: brain_pb2.RespondRequest) -> None:
        payload = request.WhichOneof("payload")
        if payload == "text":
            utterance.feed_text(request.text)
        elif payload == "audio":
            utterance.feed_audio(request.audio)
        else:
            result = request.tool_result
            utterance.tool_result(result.id, result.content, result.failed)

    def flush(self, utterance: Turn) -> None:
        utterance.finish()

    def end_of(self, event: object) -> End | None:
        return End(event.reason, event.error, compute_s=event.compute_s) if isinstance(event, Ended) else None

    def is_product(self, event: object) -> bool:
        return isinstance(event, TextPiece)

    def audio_s(self, end: End) -> None:
        return None

    def response(self, event: Started | Transcript | TextPiece | ToolCallRequest) -> brain_pb2.RespondResponse:
        if isinstance(event, TextPiece):
            text = brain_pb2.BrainText(text=event.text, ids=event.ids, produced_time=timestamp(event.produced_time_s))
            return brain_pb2.RespondResponse(text=text)
        if isinstance(event, Transcript):
            return brain_pb2.RespondResponse(transcript=brain_pb2.Transcript(text=event.text, final=event.final))
        if isinstance(event, ToolCallRequest):
            return brain_pb2.RespondResponse(tool_call=_tool_call_message(event.call))
        started = brain_pb2.RespondStarted(
            model_id=event.model_id, tokenizer_fingerprint=event.tokenizer_fingerprint, replica=replica()
        )
        return brain_pb2.RespondResponse(started=started)

    def ended(self, ended: stream_pb2.Ended, event: Ended | None) -> brain_pb2.RespondResponse:
        message = brain_pb2.RespondEnded(ended=ended)
        if event is not None:
            message.prompt_token_count = event.prompt_token_count
            message.cached_token_count = event.cached_token_count
            message.completion_token_count = event.completion_token_count
        return brain_pb2.RespondResponse(ended=message)


def turn_request(start: brain_pb2.RespondStart, deadline_s: float | None) -> TurnRequest:
    """A `RespondStart` in the engine's words. `InvalidRequest` for what no engine could mean."""
    return TurnRequest(
        instructions=start.instructions,
        history=tuple(_message(message) for message in start.history),
        sampling=_sampling(start.sampling),
        tools=tuple(Tool(tool.name, tool.description, MessageToDict(tool.parameters)) for tool in start.tools),
        audio_format=_audio_format(start.audio_format),
        partial_answer=start.partial_answer,
        want_transcript=start.want_transcript,
        speculative=start.speculative,
        deadline_s=deadline_s,
    )


def _message(message: brain_pb2.Message) -> Message:
    if message.role not in _ROLES:
        raise InvalidRequest("A message of the history needs a role.", field="history.role")
    calls = tuple(ToolCall(call.id, call.name, MessageToDict(call.arguments)) for call in message.tool_calls)
    role = _ROLES[message.role]
    return Message(role, message.text, message.audio, message.interrupted, calls, message.tool_call_id)


def _sampling(sampling: brain_pb2.BrainSampling) -> BrainSampling:
    names = ("temperature", "top_p", "max_tokens", "seed")
    given = {name: getattr(sampling, name) for name in names if sampling.HasField(name)}
    return BrainSampling(stop=tuple(sampling.stop), **given)


def _audio_format(form: stream_pb2.AudioFormat) -> AudioFormat:
    if form.encoding not in _ENCODINGS:
        raise InvalidRequest("The brain hears PCM_S16LE, PCM_F32LE and MULAW.", reason="UNSUPPORTED")
    return AudioFormat(_ENCODINGS[form.encoding], form.sample_rate_hz or 16000, form.channel_count or 1)


def _tool_call_message(call: ToolCall) -> brain_pb2.ToolCall:
    arguments = Struct()
    ParseDict(dict(call.arguments), arguments)
    return brain_pb2.ToolCall(id=call.id, name=call.name, arguments=arguments)
