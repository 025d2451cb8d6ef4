"""`Converse` over gRPC, with fakes below: what a stream promises."""

import asyncio

import grpc
import numpy as np
import pytest
from voicemesh.gateway.v1 import gateway_pb2
from voicemesh.stream.v1 import stream_pb2

from common.stage import duration
from common.stream import FinishReason
from common.telemetry import Milestone
from services.gateway.session.formats import Intake
from tests.edges import gateway
from tests.fakes import ScriptedBrain, speak, tone
from tests.gateway.session.talker import Stub, talking

STORY = ["word "] * 60


def brain():
    """Says back what it is told; a long story when asked for one."""
    return ScriptedBrain(lambda words: STORY if "story" in words else [words])


@pytest.fixture
async def address():
    async with gateway(brain=brain()) as server:
        yield server.address


async def test_a_typed_question_is_answered_in_sound_and_text(address):
    async with talking(address) as talker:
        await talker.type("Hi.")
        await talker.answered()
        (epoch,) = talker.ended
        assert talker.reason(epoch) is FinishReason.COMPLETED
        assert talker.text() == "Hi."
        assert talker.ended[epoch].sample_count == talker.sample_count(epoch)
        expected, _ = tone(speak("Hi.", seed=0))
        assert abs(talker.sample_count(epoch) - expected.size) <= 480


async def test_half_closing_finishes_what_is_being_said(address):
    async with talking(address) as talker:
        await talker.type("Hi.")
        await talker.call.done_writing()
        await talker.to_end()
        assert [talker.reason(epoch) for epoch in talker.ended] == [FinishReason.COMPLETED]
        sessions = await talker.stub.ListSessions(gateway_pb2.ListSessionsRequest())
        assert not sessions.sessions


async def test_after_an_interruption_no_sound_of_that_epoch_comes_and_the_next_question_is_answered(address):
    async with talking(address) as talker:
        await talker.type("a story")
        first = await talker.heard(0.2)
        await talker.interrupt()
        await talker.answered()
        assert talker.reason(first) is FinishReason.CANCELLED
        await talker.type("Hi.")
        await talker.answered(2)
        assert talker.text() == "Hi."
        assert talker.reason(max(talker.ended)) is FinishReason.COMPLETED


async def test_typing_silences_what_is_being_said(address):
    async with talking(address) as talker:
        await talker.type("a story")
        first = await talker.heard(0.1)
        await talker.type("Hi.")
        await talker.answered(2)
        assert talker.reason(first) is FinishReason.CANCELLED
        assert talker.text() == "Hi."


class Noting(ScriptedBrain):
    """Keeps what each turn was told."""

    def __init__(self, script):
        super().__init__(script)
        self.requests = []

    def submit(self, request):
        self.requests.append(request)
        return super().submit(request)


async def test_the_brain_is_told_of_an_interrupted_answer_what_was_heard_of_it():
    noting = Noting(lambda words: STORY if "story" in words else [words])
    async with gateway(brain=noting) as server, talking(server.address) as talker:
        await talker.type("a story")
        await talker.heard(1.0)
        await talker.interrupt()
        await talker.answered()
        await talker.type("go on")
        await talker.until(lambda: len(noting.requests) == 2)
    asked, answered = noting.requests[1].history
    assert (asked.role, asked.text) == ("user", "a story")
    assert (answered.role, answered.interrupted) == ("assistant", True)
    assert "".join(STORY).startswith(answered.text)
    assert len(answered.text) == next(t for t in talker.transcripts if t.final and not t.user).heard_character_count
    # 1 s and no more than what was sent meanwhile: the toy says 6 letters a second
    assert 2 <= len(answered.text) <= 14


async def test_a_lost_connection_is_taken_up_again_with_what_was_heard():
    noting = Noting(lambda words: STORY if "story" in words else [words])
    async with gateway(brain=noting) as server:
        async with talking(server.address) as lost:
            await lost.type("a story")
            await lost.heard(1.0)
            token, session_id = lost.started.resume_token, lost.session_id
        async with talking(server.address, resume_token=token) as talker:
            assert (talker.started.resumed, talker.session_id) == (True, session_id)
            assert talker.started.resume_token == token
            await talker.type("Hi.")
            await talker.answered()
            assert talker.text() == "Hi."
        heard = [message for message in noting.requests[1].history if message.role == "assistant"]
        assert heard[0].interrupted
        assert 1 <= len(heard[0].text) <= 14


async def test_a_second_connection_takes_over_and_the_first_is_told(address):
    async with talking(address) as first, talking(address, resume_token=first.started.resume_token) as second:
        with pytest.raises(grpc.aio.AioRpcError) as ended:
            await first.to_end()
        assert ended.value.code() is grpc.StatusCode.FAILED_PRECONDITION
        await second.type("Hi.")
        await second.answered()


async def test_a_house_that_is_full_refuses_at_once_and_says_when_to_come_again():
    async with gateway(brain=brain(), max_sessions=1) as server, talking(server.address) as first:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            async with talking(server.address):
                pass
        assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        await first.type("Hi.")
        await first.answered()


async def test_a_drain_lets_speech_finish_and_begins_nothing_new():
    async with gateway(brain=brain()) as server, talking(server.address) as talker:
        await talker.type("Hi.")
        epoch = await talker.heard(0.02)
        await server.set_ready(True)
        draining = asyncio.create_task(server.drain(10.0))
        with pytest.raises(grpc.aio.AioRpcError) as ended:
            await talker.to_end()
        assert ended.value.code() is grpc.StatusCode.UNAVAILABLE
        assert talker.reason(epoch) is FinishReason.COMPLETED
        await draining


async def test_sessions_can_be_asked_about_and_spoken_into(address):
    async with talking(address, session_id="mine") as talker:
        listed = await talker.stub.ListSessions(gateway_pb2.ListSessionsRequest())
        assert [(s.session_id, s.state, s.transport) for s in listed.sessions] == [("mine", "listening", "grpc")]
        said = await talker.stub.Say(gateway_pb2.SayRequest(session_id="mine", text="It is late.", interruptible=True))
        await talker.until(lambda: talker.sample_count(said.epoch))
        told = await talker.stub.GetSession(gateway_pb2.GetSessionRequest(session_id="mine"))
        assert (told.session.state, told.session.epoch) == ("speaking", said.epoch)
        silenced = await talker.stub.Interrupt(gateway_pb2.InterruptRequest(session_id="mine"))
        await talker.answered()
        assert talker.reason(said.epoch) is FinishReason.CANCELLED
        assert "It is late.".startswith(silenced.heard_text)
        assert silenced.heard_sample_offset <= talker.sample_count(said.epoch) + 480


async def test_the_timeline_of_a_turn_adds_up_and_outlives_its_session(address):
    async with talking(address, session_id="mine") as talker:
        await talker.type("Hi.")
        await talker.heard(0.02)
        await talker.send(playback=gateway_pb2.PlaybackReport(first_audible_delay=duration(0.06)))
        await talker.answered()
        await talker.call.done_writing()
        await talker.to_end()
        asked = gateway_pb2.GetTimelineRequest(session_id="mine", turn=1)
        milestones = (await talker.stub.GetTimeline(asked)).milestones
    names = [milestone.name for milestone in milestones]
    assert names == [milestone.value for milestone in Milestone if milestone is not Milestone.FIRST_OPUS]
    since_s = [milestone.since_user_speech_end.ToNanoseconds() / 1e9 for milestone in milestones]
    assert since_s == sorted(since_s)
    assert since_s[0] == 0
    assert since_s[-1] - since_s[-2] >= 0.06 - 0.001
    measured = [event for event in talker.events if event.type == "turn_measured"]
    assert len(measured) == 2, "once it sounds, and again when it was heard"


@pytest.mark.parametrize("call", ["GetSession", "GetTimeline", "Say", "Interrupt"])
async def test_what_is_asked_of_no_session_is_not_found(address, call):
    kind = getattr(gateway_pb2, f"{call}Request")
    async with grpc.aio.insecure_channel(address) as channel:
        for session_id, code in (("nobody", grpc.StatusCode.NOT_FOUND), ("", grpc.StatusCode.INVALID_ARGUMENT)):
            with pytest.raises(grpc.aio.AioRpcError) as failed:
                await getattr(Stub(channel), call)(kind(session_id=session_id))
            assert failed.value.code() is code


async def test_what_cannot_be_spoken_is_not_and_the_transcript_keeps_it():
    marked = ScriptedBrain(lambda words: ["**Hi**", " ", "😀"])
    async with gateway(brain=marked) as server, talking(server.address) as talker:
        await talker.type("hello")
        await talker.answered()
        assert talker.text() == "**Hi** 😀"
        said, _ = tone(speak("Hi ", seed=0))
        assert abs(talker.sample_count(max(talker.ended)) - said.size) <= 1920 + 960


@pytest.mark.parametrize("rate_hz", [8000, 48000])
async def test_telephones_are_spoken_to_in_mulaw_and_others_in_opus(address, rate_hz):
    encoding = stream_pb2.AUDIO_ENCODING_MULAW if rate_hz == 8000 else stream_pb2.AUDIO_ENCODING_OPUS
    form = stream_pb2.AudioFormat(encoding=encoding, sample_rate_hz=rate_hz)
    async with talking(address, input_format=form, output_format=form) as talker:
        await talker.type("Hi.")
        await talker.answered()
        epoch = max(talker.ended)
        heard = Intake(talker.started.output_format)
        samples = np.concatenate([heard.take(packet.payload) for packet in talker.audio[epoch]])
        expected, _ = tone(speak("Hi.", seed=0))
        assert abs(samples.size / 16000 - expected.size / 24000) < 0.06
        assert np.abs(samples).max() == pytest.approx(8000, rel=0.2)


async def status(call):
    """How a call ended, once all of it was read."""
    try:
        while await call.read() is not grpc.aio.EOF:
            pass
    except grpc.aio.AioRpcError as error:
        return error.code()
    return await call.code()


Ask = gateway_pb2.ConverseRequest
HOSTILE = {
    "text before start": ([Ask(text="x")], grpc.StatusCode.FAILED_PRECONDITION),
    "start twice": ([Ask(start={}), Ask(start={})], grpc.StatusCode.FAILED_PRECONDITION),
    "no payload": ([Ask()], grpc.StatusCode.INVALID_ARGUMENT),
    "a gap": ([Ask(start={}, seq=0), Ask(text="x", seq=2)], grpc.StatusCode.DATA_LOSS),
    "a foreign epoch": ([Ask(start={}), Ask(text="x", epoch=99)], grpc.StatusCode.INVALID_ARGUMENT),
    "another session": (
        [Ask(start={}, session_id="a"), Ask(text="x", session_id="b")],
        grpc.StatusCode.INVALID_ARGUMENT,
    ),
    "an unknown token": ([Ask(start={"resume_token": "x"})], grpc.StatusCode.NOT_FOUND),
    "a strange rate": ([Ask(start={"output_format": {"sample_rate_hz": 44100}})], grpc.StatusCode.INVALID_ARGUMENT),
    "an endless id": ([Ask(start={}, session_id="x" * 300)], grpc.StatusCode.INVALID_ARGUMENT),
}


@pytest.mark.parametrize("requests", HOSTILE, ids=list(HOSTILE))
async def test_broken_protocol_ends_the_stream_with_its_status_and_leaves_no_session(address, requests):
    sent, code = HOSTILE[requests]
    async with grpc.aio.insecure_channel(address) as channel:
        call = Stub(channel).Converse(iter(sent))
        assert await status(call) is code
        assert not (await Stub(channel).ListSessions(gateway_pb2.ListSessionsRequest())).sessions


async def test_a_message_that_is_none_ends_the_session_too(address):
    async with grpc.aio.insecure_channel(address) as channel:
        method = "/voicemesh.gateway.v1.ConversationService/Converse"
        call = channel.stream_stream(method)(iter([Ask(start={}).SerializeToString(), b"\xff\xff\xff"]))
        assert await status(call) is grpc.StatusCode.INVALID_ARGUMENT
        assert not (await Stub(channel).ListSessions(gateway_pb2.ListSessionsRequest())).sessions
        async with talking(address):
            pass


async def test_forty_broken_streams_leave_room_for_everybody():
    async with gateway(brain=brain(), max_sessions=8) as server, grpc.aio.insecure_channel(server.address) as channel:
        broken, code = HOSTILE["start twice"]
        for _ in range(40):
            assert await status(Stub(channel).Converse(iter(broken))) is code


BAD = [{"text": ""}, {"text": "x" * 70_000}, {"audio": bytes(200_000)}, {"playback": {"heard_sample_offset": -5}}]


@pytest.mark.parametrize("payload", BAD)
async def test_a_bad_message_harms_nobody(address, payload):
    async with talking(address) as talker:
        await talker.send(**payload)
        await talker.type("Hi.")
        await talker.answered()
        assert talker.text() == "Hi."
        assert any(event.type == "failed" for event in talker.events) is ("playback" not in payload)


async def test_repeated_and_stale_requests_are_dropped(address):
    async with talking(address, seq=0) as talker:
        await talker.send(text="Hi.", seq=1)
        await talker.send(text="Hi.", seq=1)
        await talker.answered()
        await talker.send(text="Ho.", seq=2)
        await talker.heard(0.02)
        await talker.send(interrupt=stream_pb2.Stop(), epoch=min(talker.ended), seq=3)
        await talker.answered(2)
        assert [talker.reason(epoch) for epoch in talker.ended] == [FinishReason.COMPLETED] * 2


async def test_an_answer_that_hit_a_limit_says_so_and_was_no_interruption():
    noting = Noting(lambda words: ["one ", "two ", "three "])
    async with gateway(brain=noting) as server, talking(server.address, sampling={"max_tokens": 2}) as talker:
        await talker.type("count")
        await talker.answered()
        assert talker.reason(max(talker.ended)) is FinishReason.LENGTH
        await talker.type("go on")
        await talker.until(lambda: len(noting.requests) == 2)
    answered = noting.requests[1].history[-1]
    assert (answered.text, answered.interrupted) == ("one two ", False)
