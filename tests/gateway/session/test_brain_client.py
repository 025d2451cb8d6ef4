"""One answer of the brain over real gRPC: streamed, cancelled, resumed on another replica."""

import asyncio
from contextlib import asynccontextmanager

import pytest
from voicemesh.brain.v1 import brain_pb2

from common.errors import InvalidRequest, Overloaded
from common.stream import FinishReason
from services.gateway.clients import Stages
from services.gateway.search import Patience
from services.gateway.session import brain_client
from services.gateway.session.brain_client import BrainAnswer
from tests.edges import serving
from tests.fakes import Refusing, ScriptedBrain
from tests.gateway.caller import until

ANSWER = [f"word{i} " for i in range(40)]


class Ear:
    """A listener that keeps what it is told."""

    def __init__(self):
        self.pieces, self.end = [], None
        self.news = asyncio.Event()

    def brain_started(self, fingerprint):
        pass

    def brain_transcript(self, text, final):
        pass

    def brain_text(self, text, ids):
        self.pieces.append(text)
        self.news.set()

    def brain_ended(self, reason, error):
        assert self.end is None, "it ended twice"
        self.end = (reason, error)
        self.news.set()

    async def heard(self, count):
        while len(self.pieces) < count and self.end is None:
            self.news.clear()
            await self.news.wait()


@asynccontextmanager
async def stages(*addresses):
    found = Stages("127.0.0.1:1", "127.0.0.1:1", brain_address=",".join(addresses))
    await found.brain.look()
    try:
        yield found
    finally:
        await found.close()


def asked(found, ear, words="tell me", patience=None):
    answer = BrainAnswer(found, "s", brain_pb2.RespondStart(), patience or Patience(), ear)
    answer.type(words)
    answer.finish()
    return answer


async def test_an_answer_comes_as_it_is_made_and_ends_once():
    ear = Ear()
    async with serving("brain", ScriptedBrain(lambda words: words.split())) as server, stages(server.address) as found:
        await asked(found, ear, "one two three").run()
    assert ear.pieces == ["one", "two", "three"]
    assert ear.end == (FinishReason.COMPLETED, None)


async def test_a_cancel_is_acknowledged_and_frees_the_slot():
    ear, brain = Ear(), ScriptedBrain(lambda words: ANSWER, step_s=0.05)
    async with serving("brain", brain) as server, stages(server.address) as found:
        answer = asked(found, ear)
        running = asyncio.create_task(answer.run())
        await ear.heard(2)
        answer.cancel()
        said = len(ear.pieces)
        await running
        assert answer.cancel_s is not None
        assert brain.pool.free_count == brain.pool.total
    assert (len(ear.pieces), ear.end) == (said, None), "something was told after the cancel"


async def test_a_brain_that_does_not_acknowledge_is_hung_up_on(monkeypatch):
    monkeypatch.setattr(brain_client, "CANCEL_S", 0.01)
    ear, brain = Ear(), ScriptedBrain(lambda words: ANSWER, step_s=0.05)
    async with serving("brain", brain) as server, stages(server.address) as found:
        answer = asked(found, ear)
        running = asyncio.create_task(answer.run())
        await ear.heard(1)
        answer._stream.send = lambda request: None  # the stop never arrives
        answer.cancel()
        await running
        assert answer.cancel_s is None
        await until(lambda: brain.pool.free_count == brain.pool.total)


async def test_what_a_dead_brain_began_another_one_goes_on_with():
    ear = Ear()
    slow, fast = (ScriptedBrain(lambda words: ANSWER, step_s=step_s) for step_s in (0.02, 0.0))
    async with (
        serving("brain", fast) as second,
        serving("brain", slow) as first,
        stages(first.address, second.address) as found,
    ):
        found.brain.settle("s", found.brain.all[0])
        running = asyncio.create_task(asked(found, ear).run())
        await ear.heard(5)
        await first.stop()
        await running
    assert ear.pieces == ANSWER
    assert ear.end == (FinishReason.COMPLETED, None)


async def test_audio_is_told_to_the_next_replica_again():
    heard = []

    class Hearing(ScriptedBrain):
        def submit(self, request):
            turn = super().submit(request)
            turn.feed_audio = lambda payload: heard.append(payload)
            return turn

    class Deaf(ScriptedBrain):
        def submit(self, request):
            turn = super().submit(request)
            turn.feed_audio = lambda payload: turn.cancel()
            return turn

    ear = Ear()
    async with (
        serving("brain", Deaf()) as first,
        serving("brain", Hearing()) as second,
        stages(first.address, second.address) as found,
    ):
        found.brain.settle("s", found.brain.all[0])
        answer = BrainAnswer(found, "s", brain_pb2.RespondStart(), Patience(), ear)
        running = asyncio.create_task(answer.run())
        answer.hear(b"\1\2" * 1000)
        answer.hear(b"\3\4" * 1000)
        answer.finish()
        await running
    assert b"".join(heard) == b"\1\2" * 1000 + b"\3\4" * 1000
    assert ear.pieces == ["Pardon? "]


async def test_a_full_brain_refuses_at_once():
    ear = Ear()
    full = Refusing(ScriptedBrain(), Overloaded("full"))
    async with serving("brain", full) as server, stages(server.address) as found:
        await asked(found, ear).run()
    reason, error = ear.end
    assert reason is FinishReason.FAILED
    assert isinstance(error, Overloaded)


async def test_without_a_brain_the_answer_fails_after_a_while():
    ear = Ear()
    async with stages("127.0.0.1:1") as found:
        await asked(found, ear, patience=Patience(connect_s=0.05)).run()
    assert ear.end[1].reason == "DEPENDENCY_DOWN"


async def test_a_turn_of_endless_audio_is_refused():
    async with stages("127.0.0.1:1") as found:
        answer = BrainAnswer(found, "s", brain_pb2.RespondStart(), Patience(), Ear())
        answer.hear(bytes(round(brain_client.MAX_AUDIO_S * brain_client.BYTES_PER_S)))
        with pytest.raises(InvalidRequest, match="at most"):
            answer.hear(b"\0\0")
