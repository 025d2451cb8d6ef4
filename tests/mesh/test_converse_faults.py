"""Conversations over real processes: a stage dies in mid-answer, and all that is heard of it is a pause."""

from __future__ import annotations

import asyncio

import grpc
import pytest

from common.stream import FinishReason
from tests.gateway.session.talker import talking
from tests.mesh.speech import SpeechMesh, busy, speech_mesh

FAKES = ("-m", "tests.fakes")
QUESTION = "a b c d e f g h i j"


@pytest.fixture(scope="module")
def mesh():
    slow = ("--step-s", "0.01")
    with speech_mesh(
        [(*FAKES, "tts_lm", *slow)] * 2,
        [(*FAKES, "codec")] * 2,
        "--turns",
        '{"user_away_s": 0}',
        brains=[(*FAKES, "brain", "--step-s", "0.1")] * 2,
    ) as running:
        yield running


@pytest.mark.fault
@pytest.mark.timeout(120)
async def test_two_conversations_do_not_hear_each_other(mesh: SpeechMesh):
    async def ask(words: str) -> tuple[str, FinishReason]:
        async with talking(mesh.gateway.address) as talker:
            await talker.type(words)
            await talker.answered()
            return talker.text(), talker.reason(max(talker.ended))

    answers = await asyncio.gather(ask("one two"), ask("six seven"))
    assert answers == [("one two ", FinishReason.COMPLETED), ("six seven ", FinishReason.COMPLETED)]


@pytest.mark.fault
@pytest.mark.timeout(120)
@pytest.mark.parametrize("stage", ["brains", "talkers", "codecs"])
async def test_a_stage_that_is_killed_in_mid_answer_costs_a_pause(mesh: SpeechMesh, stage: str):
    async with talking(mesh.gateway.address) as talker:
        await talker.type(QUESTION)
        epoch = await talker.heard(0.4)
        (await busy(getattr(mesh, stage))).kill()
        await talker.answered()
        assert talker.reason(epoch) is FinishReason.COMPLETED
        assert list(talker.ended) == [epoch], "the same answer, not another one"
        assert talker.text() == QUESTION + " "
        frames = sum(1 + ord(character) % 3 for character in QUESTION + " ")
        assert abs(talker.sample_count(epoch) - frames * 1920) <= 960 + 480


@pytest.mark.fault
@pytest.mark.timeout(120)
async def test_a_gateway_that_is_told_to_end_finishes_its_sentence(mesh: SpeechMesh):
    async with talking(mesh.gateway.address) as talker:
        await talker.type("a b c d")
        epoch = await talker.heard(0.3)
        mesh.gateway.process.terminate()
        with pytest.raises(grpc.aio.AioRpcError) as ended:
            await talker.to_end()
    assert ended.value.code() is grpc.StatusCode.UNAVAILABLE
    assert talker.reason(epoch) is FinishReason.COMPLETED
    assert talker.text() == "a b c d "
    assert await asyncio.to_thread(mesh.gateway.process.wait, 60) == 0
