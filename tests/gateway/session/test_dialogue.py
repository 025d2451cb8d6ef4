"""A conversation over fake stages: what is asked is answered, what is unwanted falls silent, what was heard is kept."""

from __future__ import annotations

from common.stream import FinishReason
from services.gateway.session import ports
from tests.fakes import ScriptedBrain, speak, tone
from tests.gateway.session.home import Client, home


async def test_a_typed_question_is_answered_aloud():
    async with home(ScriptedBrain(lambda words: ["You said ", words, "."])) as house:
        client = Client()
        house.open(client).type("hello")
        ended = await client.told(ports.AnswerEnded)
    assert (ended.reason, ended.heard_text) == (FinishReason.COMPLETED, "You said hello.")
    expected, _ = tone(speak("You said hello.", seed=0))
    assert client.samples().size // 480 >= expected.size // 480
