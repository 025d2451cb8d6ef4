"""Tools that a brain has the client call: through a conversation, and told the way back."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from voicemesh.brain.v1 import brain_pb2
from voicemesh.gateway.v1 import gateway_pb2

from common.errors import InvalidRequest, OutOfOrder
from common.stream import FinishReason
from services.brain.types import ToolCall
from services.gateway.session import ports
from services.gateway.session.tool_book import ToolBook
from services.gateway.turns.settings import TurnSettings
from tests.edges import gateway
from tests.fakes import ScriptedBrain
from tests.gateway.caller import until
from tests.gateway.session.home import Client, HearingBrain, home, loudness, silence, voice
from tests.gateway.session.talker import talking

QUICK = TurnSettings(user_away_s=0.0)
WEATHER = brain_pb2.Tool(name="weather", description="of a city")
ASKED = ports.SessionSettings(tools=(WEATHER,))


def forecast(words: str) -> list[Any]:
    """Looks it up, then says it."""
    return [ToolCall("call-1", "weather", {"city": "Bern", "days": 2}), "Sunny. "]


class Noting(HearingBrain):
    def __init__(self) -> None:
        super().__init__(forecast)


async def test_a_tool_is_called_by_the_client_and_the_answer_goes_on() -> None:
    noting = Noting()
    async with home(noting, settings=QUICK) as house:
        client = Client()
        dialogue = house.open(client, ASKED)
        dialogue.type("weather?")
        called = await client.told(ports.ToolCalled)
        assert (called.turn, called.call.name, dict(called.call.arguments)) == (
            1,
            "weather",
            {"city": "Bern", "days": 2},
        )
        await asyncio.sleep(0.05)
        assert not client.all(ports.AnswerEnded)
        dialogue.tool_result(called.call.id, "sun", False)
        assert (await client.told(ports.AnswerEnded)).heard_text == "Sunny. "
        assert [tool.name for tool in noting.requests[0].tools] == ["weather"]
        dialogue.type("and now?")
        await until(lambda: len(noting.requests) == 2)
    history = [(message.role, message.text, len(message.tool_calls)) for message in noting.requests[1].history]
    assert history == [
        ("user", "weather?", 0), ("assistant", "", 1), ("tool", "sun", 0), ("assistant", "Sunny. ", 0),
    ]  # fmt: skip


async def test_on_a_guess_no_tool_is_called_and_once_it_is_the_answer_it_is() -> None:
    noting = Noting()
    async with home(noting, settings=QUICK, new_listener=loudness) as house:
        client = Client()
        dialogue = house.open(client, ASKED)

        def hear(*sounds: Any) -> None:
            for sound in sounds:
                for at in range(0, sound.size, 320):
                    dialogue.hear(sound[at : at + 320], asyncio.get_running_loop().time())

        hear(silence(0.2), voice(0.5), silence(0.2))
        await until(lambda: noting.turns and noting.turns[0].is_flushed)
        await until(lambda: noting.turns[0]._open_calls)
        await asyncio.sleep(0.05)
        assert not client.all(ports.ToolCalled)
        hear(voice(0.4))  # they went on: that call is never made
        await until(lambda: noting.turns[0].is_cancelled)
        assert noting.requests[0].speculative
        hear(silence(1.5))
        committed = client.events.index(await client.told(ports.TurnCommitted))
        called = await client.told(ports.ToolCalled)
        assert client.events.index(called) > committed
        assert len(client.all(ports.ToolCalled)) == 1
        dialogue.tool_result(called.call.id, "sun", False)
        assert (await client.told(ports.AnswerEnded)).heard_text == "Sunny. "


async def test_an_answer_to_a_call_that_nobody_made_is_refused() -> None:
    async with home(ScriptedBrain(forecast), settings=QUICK) as house:
        client = Client()
        dialogue = house.open(client, ASKED)
        with pytest.raises(InvalidRequest, match="No call"):
            dialogue.tool_result("call-1", "x", False)
        dialogue.type("weather?")
        await client.told(ports.ToolCalled)
        dialogue.tool_result("call-1", "x", False)
        with pytest.raises(InvalidRequest, match="No call"):
            dialogue.tool_result("call-1", "y", False)


async def test_what_a_tool_did_for_an_answer_that_was_cut_is_remembered() -> None:
    noting = Noting()
    async with home(noting, settings=QUICK) as house:
        client = Client()
        dialogue = house.open(client, ASKED)
        dialogue.type("weather?")
        called = await client.told(ports.ToolCalled)
        dialogue.interrupt()
        assert (await client.told(ports.AnswerEnded)).reason is FinishReason.CANCELLED
        dialogue.tool_result(called.call.id, "late sun", False)  # the client had begun it
        await until(lambda: noting.pool.free_count == noting.pool.total)
        dialogue.type("and now?")
        await until(lambda: len(noting.requests) == 2)
    history = [(message.role, message.text, len(message.tool_calls)) for message in noting.requests[1].history]
    assert history == [("user", "weather?", 0), ("assistant", "", 1), ("tool", "late sun", 0)]


async def test_a_brain_that_calls_no_tools_is_asked_for_none() -> None:
    class Plain(ScriptedBrain):
        def info(self) -> Any:
            from dataclasses import replace

            return replace(super().info(), calls_tools=False)

    async with home(Plain(), settings=QUICK) as house:
        with pytest.raises(OutOfOrder, match="no tools"):
            house.open(Client(), ASKED)
        assert house.conversations.registry.all == []


async def test_over_grpc_a_tool_is_called_and_answered() -> None:
    async with gateway(brain=ScriptedBrain(forecast)) as server, talking(server.address, tools=[WEATHER]) as talker:
        await talker.type("weather?")
        call = await talker.until(lambda: talker.calls and talker.calls[0])
        assert (call.name, dict(call.arguments)) == ("weather", {"city": "Bern", "days": 2})
        await talker.send(tool_result=brain_pb2.ToolResult(id="nobody", content="x"))
        assert (await talker.told("failed")).error.message.startswith("No call")
        await talker.send(tool_result=brain_pb2.ToolResult(id=call.id, content="sun"))
        await talker.answered()
        assert talker.text() == "Sunny. "


@pytest.mark.parametrize("tools", [[brain_pb2.Tool(name="a")] * 2, [brain_pb2.Tool()], [WEATHER] * 65])
async def test_tools_that_cannot_be_are_refused(tools: list[brain_pb2.Tool]) -> None:
    from services.gateway.session.asked import asked_of

    with pytest.raises(InvalidRequest):
        asked_of(gateway_pb2.ConverseStart(tools=tools))


def call(call_id: str, **arguments: Any) -> brain_pb2.ToolCall:
    made = brain_pb2.ToolCall(id=call_id, name="send")
    made.arguments.update(arguments)
    return made


def test_the_same_call_of_another_brain_is_not_made_again() -> None:
    book = ToolBook()
    assert book.result(call("a", to="Ann")) is None
    assert [
        book.call(call("a", to="Ann"), 1),
        book.call(call("b", to="Ann"), 1),
        book.call(call("c", to="Bob"), 2),
    ] == [
        *(True, False, True),
    ]
    assert [result.id for result in book.answered("a", "sent", failed=False)] == ["a", "b"]
    again = book.result(call("d", to="Ann"))
    assert again is not None
    assert (again.id, again.content) == ("d", "sent")
    assert not book.is_open("a")
    assert book.is_open("c")
    assert [made.id for made, _ in book.unrecorded()] == ["a"]
    assert book.unrecorded() == []
