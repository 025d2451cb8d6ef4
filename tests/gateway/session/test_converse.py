"""`Converse` over gRPC, with fakes below: what a stream promises."""

import pytest
from voicemesh.gateway.v1 import gateway_pb2

from common.stream import FinishReason
from tests.edges import gateway
from tests.fakes import ScriptedBrain, speak, tone
from tests.gateway.session.talker import talking

LONG = "word " * 60


def brain():
    """Says back what it is told; a long story when asked for one."""
    return ScriptedBrain(lambda words: LONG.split(" ") if "story" in words else [words])


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
