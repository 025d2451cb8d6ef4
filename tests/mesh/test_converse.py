"""Conversations on a bare machine: the offline brain, mini's voice, a recording as microphone, real processes."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

from common.stream import FinishReason
from common.telemetry import Milestone
from tests.cli.commands import voicemesh
from tests.gateway.session.talker import Talker, talking
from tests.mesh.processes import Mesh, running_mesh

SPEECH = Path(__file__).parents[1] / "brain" / "speech"
RATE_HZ = 16000
pytestmark = pytest.mark.timeout(180)


@pytest.fixture(scope="module")
def mesh():
    with running_mesh(timeout_s=120.0) as running:
        yield running


class Microphone:
    """Gives silence, and whatever is said into it, in real time, until the block ends."""

    def __init__(self, talker: Talker) -> None:
        self._talker = talker
        self._sound = np.zeros(0, np.int16)

    def say(self, name: str) -> None:
        samples, rate = soundfile.read(SPEECH / f"{name}.flac", dtype="int16")
        assert rate == RATE_HZ
        self._sound = np.concatenate([self._sound, samples])

    async def __aenter__(self) -> Microphone:
        self._task = asyncio.create_task(self._run())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()
        await asyncio.wait([self._task])

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        due_s = loop.time()
        while True:
            block, self._sound = self._sound[:320], self._sound[320:]
            await self._talker.send(audio=np.pad(block, (0, 320 - block.size)).tobytes())
            due_s += 0.02
            await asyncio.sleep(max(0.0, due_s - loop.time()))


async def test_a_question_is_asked_and_answered_aloud(mesh: Mesh):
    async with talking(mesh.address("gateway")) as talker, Microphone(talker) as microphone:
        microphone.say("sum")
        await talker.answered()
        epoch = max(talker.ended)
        assert talker.text(user=True) == "what is twelve plus thirty one"
        assert talker.text() == "That is forty three."
        assert talker.reason(epoch) is FinishReason.COMPLETED
        samples = np.frombuffer(talker.payload(epoch), "<i2")
        assert 0.5 < samples.size / 24000 < 5
        assert np.abs(samples).max() > 1000
        (measured,) = (event for event in talker.events if event.type == "turn_measured")
        names = [one.name for one in measured.milestones]
        assert names == [m.value for m in Milestone if m not in (Milestone.FIRST_OPUS, Milestone.CLIENT_FIRST_AUDIBLE)]


async def test_a_voice_silences_a_story_and_is_answered(mesh: Mesh):
    async with talking(mesh.address("gateway")) as talker, Microphone(talker) as microphone:
        await talker.type("tell me a long story")
        story = await talker.heard(2.0)
        microphone.say("sum")
        await talker.until(lambda: story in talker.ended)
        assert talker.reason(story) is FinishReason.CANCELLED
        heard = next(told for told in talker.transcripts if told.final and not told.user)
        assert 0 < heard.heard_character_count < len(heard.text)
        await talker.answered(2)  # and no sound of the story meanwhile: `Talker` looks
        assert talker.text() == "That is forty three."
        assert talker.reason(max(talker.ended)) is FinishReason.COMPLETED


async def test_what_mini_cannot_say_is_told_and_the_conversation_goes_on(mesh: Mesh):
    async with talking(mesh.address("gateway")) as talker:
        await talker.type("repeat after me: 你好")
        await talker.told("failed")
        await talker.until(lambda: any(event.state == "listening" for event in talker.events[-1:]))
        asked = len(talker.ended)
        await talker.type("hello")
        await talker.answered(asked + 1)
        assert talker.reason(max(talker.ended)) is FinishReason.COMPLETED


async def test_chat_works_on_a_bare_machine(mesh: Mesh, tmp_path: Path):
    out = tmp_path / "heard.wav"
    done = await voicemesh("chat", "spell cat", "--json", "--out", str(out), "--gateway", mesh.address("gateway"))
    assert done.code == 0, done.errors
    answer = json.loads(done.out.splitlines()[-1])
    assert (answer["finish_reason"], answer["heard"]) == ("COMPLETED", answer["answer"])
    assert soundfile.info(str(out)).duration > 0.5
