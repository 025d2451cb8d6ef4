"""The OpenAI-compatible backend against a local server, behind the conformance suite and at its own edges."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from common.errors import InvalidRequest, MeshError, NotReady, OutOfTime, Overloaded
from common.stream import FinishReason
from services.brain.admission import BrainEngine
from services.brain.backends.openai import GO_ON, OpenAIBackend
from services.brain.limits import BrainLimits
from services.brain.options import OpenAIOptions
from services.brain.types import BrainSampling, Ended, Message, Role, TextPiece, Transcript, TurnRequest
from tests.brain.conformance import Conformance
from tests.brain.home import Home, answer, begin, events_of, ready, text_of, tone, until
from tests.brain.openai_server import MODEL, OpenAIServer, recordings_in
from tests.brain.tiny_models import SPEECH

LIMITS = BrainLimits(slot_count=4, check_interval_s=0.05)


@pytest.fixture
async def server() -> AsyncIterator[OpenAIServer]:
    running = OpenAIServer()
    await running.start()
    yield running
    await running.kill()


@pytest.fixture
async def engine(server: OpenAIServer) -> AsyncIterator[BrainEngine]:
    backend = OpenAIBackend(OpenAIOptions(server.url, read_timeout_s=0.5, retry_delay_s=0.01))
    running = BrainEngine(backend, LIMITS)
    await running.start()
    yield running
    await running.close()


@pytest.fixture
async def home(server: OpenAIServer, engine: BrainEngine) -> Home:
    return Home(engine, ask="hello", call="hello", kill=server.kill, revive=server.start)


class TestOpenAI(Conformance):
    pass


async def test_it_answers_as_the_server_does_and_counts_its_tokens(engine: BrainEngine) -> None:
    said, end = await answer(engine, "hello")
    assert said == "".join(SPEECH)
    assert engine.info().model_id == MODEL
    assert end.completion_token_count == len(SPEECH)
    assert 0 < end.cached_token_count < end.prompt_token_count


async def test_sampling_tools_and_audio_reach_the_server(engine: BrainEngine, server: OpenAIServer) -> None:
    sampling = BrainSampling(temperature=0.5, top_p=0.9, max_tokens=4, seed=2**64 - 1, stop=("zz",))
    history = (Message(Role.USER, audio=tone(1)), Message(Role.ASSISTANT, "hel", interrupted=True))
    await answer(engine, tone(2), TurnRequest("be kind", history, sampling))
    asked = server.requests[-1]
    assert {name: asked[name] for name in ("temperature", "top_p", "max_tokens", "stop", "model", "stream")} == {
        "temperature": 0.5, "top_p": 0.9, "max_tokens": 4, "stop": ["zz"], "model": MODEL, "stream": True,
    }  # fmt: skip
    assert recordings_in(asked) == [1.0, 2.0]
    assert asked["messages"][0] == {"role": "system", "content": "be kind"}
    assert asked["messages"][2] == {"role": "assistant", "content": "hel [interrupted by the user]"}


async def test_a_tools_result_goes_back_with_its_call(engine: BrainEngine, server: OpenAIServer) -> None:
    from tests.brain.home import CLOCK

    turn = begin(engine, "hello", TurnRequest(tools=(CLOCK,)))
    async for event in turn:
        if hasattr(event, "call"):
            turn.tool_result(event.call.id, "no such zone", failed=True)
    *_, asked, told = server.requests[-1]["messages"]
    assert asked["tool_calls"][0]["function"] == {"name": "clock", "arguments": '{"zone": "UTC"}'}
    assert told == {"role": "tool", "content": "Error: no such zone", "tool_call_id": asked["tool_calls"][0]["id"]}


@pytest.mark.parametrize("refusal", [0, 429, 500, 503])
async def test_a_request_is_tried_again_before_its_first_token(
    engine: BrainEngine, server: OpenAIServer, refusal: int
) -> None:
    server.refusals = [refusal, refusal]
    said, _ = await answer(engine, "hello")
    assert said == "".join(SPEECH)
    assert len(server.requests) == 3


async def test_an_answer_that_broke_off_is_not_tried_again(engine: BrainEngine, server: OpenAIServer) -> None:
    server.break_after = 5
    said, end = await answer(engine, "hello")
    assert said == "".join(SPEECH[: len(said.split())])
    assert 0 < len(said.split()) <= 5
    assert isinstance(end.error, NotReady)
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("refusal", "fault", "tries"),
    [(429, Overloaded, 3), (500, NotReady, 3), (400, InvalidRequest, 1), (404, InvalidRequest, 1), (401, NotReady, 3)],
)
async def test_a_refusal_says_what_it_was_and_nothing_of_the_servers_words(
    engine: BrainEngine, server: OpenAIServer, refusal: int, fault: type[MeshError], tries: int
) -> None:
    server.refusals = [refusal] * 9
    _, end = await answer(engine, "hello")
    assert end.reason is FinishReason.FAILED
    assert type(end.error) is fault
    assert "words of the turn" not in str(end.error)
    assert len(server.requests) == tries


async def test_a_silent_server_is_out_of_time(engine: BrainEngine, server: OpenAIServer) -> None:
    server.silent = True
    _, end = await answer(engine, "hello")
    assert isinstance(end.error, OutOfTime)


async def test_a_cancel_closes_the_connection(engine: BrainEngine, server: OpenAIServer) -> None:
    turn = begin(engine, "hello")
    async for event in turn:
        if isinstance(event, TextPiece):
            turn.cancel()
    assert isinstance(event, Ended)
    await until(lambda: server.running == 0)


async def test_a_transcript_is_asked_for_in_a_request_of_its_own(engine: BrainEngine, server: OpenAIServer) -> None:
    events = await events_of(begin(engine, tone(1), TurnRequest(want_transcript=True)))
    assert Transcript("".join(SPEECH).strip(), True) in events
    assert text_of(events) == "".join(SPEECH)
    assert [recordings_in(request) for request in server.requests] == [[1.0], [1.0]]


async def test_a_server_without_continuation_is_asked_to_go_on(server: OpenAIServer) -> None:
    backend = OpenAIBackend(OpenAIOptions(server.url, continues="ask"))
    engine = BrainEngine(backend, LIMITS)
    await engine.start()
    await answer(engine, "hello", TurnRequest(partial_answer="so far"))
    await engine.close()
    assert server.requests[-1]["messages"][1:] == [
        {"role": "assistant", "content": "so far"},
        {"role": "user", "content": GO_ON},
    ]


async def test_a_server_that_is_not_there_yet_is_waited_for() -> None:
    server = OpenAIServer()
    await server.start()
    await server.kill()
    engine = BrainEngine(OpenAIBackend(OpenAIOptions(server.url)), LIMITS)
    await engine.start()
    with pytest.raises(NotReady):
        engine.submit(TurnRequest())
    assert engine.info().free_slot_count == 0
    await server.start()
    await ready(engine, True)
    assert (await answer(engine, "hello"))[0]
    assert engine.info().model_id == MODEL
    await engine.close()
    await server.kill()
