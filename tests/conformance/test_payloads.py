"""What the edges make of payloads, where that is more than passing them on."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import pytest
from voicemesh.brain.v1 import brain_pb2, brain_pb2_grpc
from voicemesh.codec.v1 import codec_pb2, codec_pb2_grpc
from voicemesh.stream.v1 import stream_pb2
from voicemesh.tts_lm.v1 import tts_lm_pb2

from common.errors import InvalidRequest
from common.status import error_of
from common.stream import FinishReason
from services.brain import types as brain
from services.brain.server import turn_request
from services.tts_lm.server import utterance_request
from services.tts_lm.types import CloneVoice, ResumePoint
from tests.edges import serving
from tests.fakes import ScriptedBrain, speak, tone

FRAMES = speak("abcdef")


async def decode(*requests: codec_pb2.DecodeRequest) -> list[codec_pb2.DecodeResponse]:
    async with serving("codec") as server, grpc.aio.insecure_channel(server.address) as channel:
        call = codec_pb2_grpc.CodecServiceStub(channel).Decode(iter(requests))
        return [response async for response in call]


def some(first: int, last: int, index: int | None = None) -> codec_pb2.DecodeRequest:
    codes = [code for frame in FRAMES[first:last] for code in frame]
    at = first if index is None else index
    frames = codec_pb2.CodecFrames(first_frame_index=at, frame_count=last - first, codes=codes)
    return codec_pb2.DecodeRequest(frames=frames)


def opening(**start: Any) -> codec_pb2.DecodeRequest:
    return codec_pb2.DecodeRequest(start=codec_pb2.DecodeStart(**start))


CLOSING = codec_pb2.DecodeRequest(flush=stream_pb2.Flush())


def pcm(responses: list[codec_pb2.DecodeResponse]) -> bytes:
    return b"".join(response.audio.payload for response in responses)


async def test_frames_that_were_there_before_are_dropped():
    responses = await decode(opening(), some(0, 3), some(0, 3), some(1, 5), some(2, 4), CLOSING)
    assert pcm(responses) == tone(FRAMES[:5])[0].tobytes()


async def test_the_first_frames_set_where_counting_begins():
    responses = await decode(opening(), some(0, 2, index=40), some(2, 4, index=42), CLOSING)
    chunks = [response.audio for response in responses if response.HasField("audio")]
    assert chunks[0].first_frame_index == 40
    assert sum(chunk.frame_count for chunk in chunks) == 4


async def test_missing_frames_are_data_loss_of_their_utterance_alone():
    responses = await decode(opening(), some(0, 2), some(3, 4), CLOSING, opening(), some(0, 2), CLOSING)
    ends = [response.ended for response in responses if response.HasField("ended")]
    assert [end.reason for end in ends] == [FinishReason.FAILED, FinishReason.COMPLETED]
    assert error_of(ends[0].error).reason == "SEQUENCE_GAP"


@pytest.mark.parametrize(("count", "length"), [(2, 16), (1, 15), (-1, 16)])
async def test_a_wrong_number_of_codes_fails_the_utterance(count, length):
    frames = codec_pb2.CodecFrames(frame_count=count, codes=[1] * length)
    responses = await decode(opening(), codec_pb2.DecodeRequest(frames=frames), CLOSING)
    assert error_of(responses[-1].ended.error).reason == "INVALID"


async def test_continue_state_goes_on_where_the_utterance_before_ended():
    responses = await decode(opening(), some(0, 2), CLOSING, opening(continue_state=True), some(2, 5, index=0), CLOSING)
    assert pcm(responses) == tone(FRAMES[:5])[0].tobytes()


@pytest.mark.parametrize("before", [(), (opening(), some(0, 2), CLOSING)])
async def test_there_is_no_state_to_continue_at_first_or_after_reset(before):
    reset = codec_pb2.DecodeRequest(reset=stream_pb2.Reset())
    responses = await decode(*before, reset, opening(continue_state=True), CLOSING)
    assert error_of(responses[-1].ended.error).reason == "OUT_OF_ORDER"


async def test_reference_audio_may_come_in_pieces():
    async with serving("codec") as server, grpc.aio.insecure_channel(server.address) as channel:
        stub = codec_pb2_grpc.CodecServiceStub(channel)
        pieces = [codec_pb2.EncodeRequest(payload=bytes([piece])) for piece in (1, 2, 3)]
        in_pieces = await stub.Encode(iter(pieces))
        whole = await stub.Encode(iter([codec_pb2.EncodeRequest(payload=b"\1\2\3")]))
    assert in_pieces == whole
    assert in_pieces.frame_count * 16 == len(in_pieces.codes)


def test_a_start_says_everything_to_the_talker():
    start = tts_lm_pb2.GenerateStart(
        voice=tts_lm_pb2.Voice(clone=tts_lm_pb2.Clone(speaker_vector=[0.5], codes=[1, 2], reference_text="x")),
        text_layout=tts_lm_pb2.TEXT_LAYOUT_WHOLE,
        sampling=tts_lm_pb2.Sampling(seed=0, top_k=0, predictor_top_p=0.5),
        packet_ramp=tts_lm_pb2.PacketRamp(frames=[1, 2]),
        resume=tts_lm_pb2.Resume(codes=[3], text_token_count=4),
    )
    start.text_timeout.FromMilliseconds(1500)
    request = utterance_request(start)
    assert request.voice == CloneVoice((0.5,), (1, 2), "x")
    assert (request.layout, request.packet_ramp, request.text_timeout_s) == ("whole", (1, 2), 1.5)
    assert (request.sampling.seed, request.sampling.top_k, request.sampling.predictor_top_p) == (0, 0, 0.5)
    assert request.sampling.temperature is None
    assert request.resume == ResumePoint((3,), 4)


def test_an_empty_start_leaves_everything_to_the_model():
    request = utterance_request(tts_lm_pb2.GenerateStart())
    assert (request.voice, request.packet_ramp, request.layout) == (None, (1,), "streaming")
    assert (request.max_frames, request.max_lead_frames, request.resume, request.text_timeout_s) == (None,) * 4
    assert request.sampling.seed is None


@pytest.mark.parametrize(
    "start",
    [
        tts_lm_pb2.GenerateStart(max_frames=-1),
        tts_lm_pb2.GenerateStart(max_lead_frames=-1),
        tts_lm_pb2.GenerateStart(text_layout=7),  # type: ignore[arg-type]
        tts_lm_pb2.GenerateStart(packet_ramp=tts_lm_pb2.PacketRamp(frames=[1, 0])),
        tts_lm_pb2.GenerateStart(voice=tts_lm_pb2.Voice()),
    ],
)
def test_a_start_that_nobody_could_mean_is_invalid(start):
    with pytest.raises(InvalidRequest):
        utterance_request(start)


def test_a_history_reaches_the_brain_as_it_was():
    call = brain_pb2.ToolCall(id="1", name="clock")
    call.arguments.update({"zone": "UTC"})
    start = brain_pb2.RespondStart(
        history=[brain_pb2.Message(role=brain_pb2.ROLE_ASSISTANT, text="hm", interrupted=True, tool_calls=[call])],
        sampling=brain_pb2.BrainSampling(temperature=0.0, stop=["."]),
    )
    request = turn_request(start, deadline_s=2.5)
    (message,) = request.history
    assert (message.role, message.text, message.interrupted) == (brain.Role.ASSISTANT, "hm", True)
    assert message.tool_calls == (brain.ToolCall("1", "clock", {"zone": "UTC"}),)
    assert (request.sampling.temperature, request.sampling.max_tokens, request.sampling.stop) == (0.0, None, (".",))
    assert (request.audio_format.sample_rate_hz, request.deadline_s) == (16000, 2.5)


async def test_a_tool_is_called_and_its_result_may_come_after_finish():
    engine = ScriptedBrain(lambda words: ["Let me see. ", brain.ToolCall("7", "clock", {"zone": "UTC"}), "Noon. "])
    async with serving("brain", engine) as server, grpc.aio.insecure_channel(server.address) as channel:
        call = brain_pb2_grpc.BrainServiceStub(channel).Respond()
        for request in ({"start": brain_pb2.RespondStart()}, {"text": "time?"}, {"finish": brain_pb2.Finish()}):
            await call.write(brain_pb2.RespondRequest(**request))
        async with asyncio.timeout(60):
            while (response := await call.read()).WhichOneof("payload") != "tool_call":
                pass
            assert (response.tool_call.id, dict(response.tool_call.arguments)) == ("7", {"zone": "UTC"})
            await call.write(brain_pb2.RespondRequest(tool_result=brain_pb2.ToolResult(id="7", content="12:00")))
            assert (await call.read()).text.text == "Noon. "
            assert (await call.read()).ended.ended.reason == FinishReason.COMPLETED
        call.cancel()
