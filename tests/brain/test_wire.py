"""The brain as a client meets it: a process of its own, real gRPC, health that follows what answers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from voicemesh.brain.v1 import brain_pb2, brain_pb2_grpc
from voicemesh.stream.v1 import stream_pb2

from services.brain.offline.talk import NOT_ENGLISH
from services.brain.server import SERVICE
from tests.brain.home import speech
from tests.brain.openai_server import OpenAIServer
from tests.brain.tiny_models import SPEECH
from tests.mesh.processes import end, read_ready_lines, start

Request = brain_pb2.RespondRequest


def serve(*options: str) -> Iterator[str]:
    """The address of a brain in a process of its own."""
    with start(["-m", "services.brain", "--port", "0", "--no-metrics", *options]) as process:
        try:
            yield read_ready_lines(process, 1, 30)["brain"]["address"]
        finally:
            end(process)


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    yield from serve("--offline-tokens-per-s", "500")


@pytest.fixture
async def stub(address: str) -> AsyncIterator[Any]:
    async with grpc.aio.insecure_channel(address) as channel:
        yield brain_pb2_grpc.BrainServiceStub(channel)


async def turn(stub: Any, *requests: Request, **fields: Any) -> list[Any]:
    """One turn: start, what is said, finish; everything that is answered."""
    call = stub.Respond()
    await call.write(Request(start=brain_pb2.RespondStart(**fields)))
    for request in (*requests, Request(finish=brain_pb2.Finish())):
        await call.write(request)
    responses = []
    while not (responses and responses[-1].HasField("ended")):
        responses.append(await call.read())
        assert responses[-1] is not grpc.aio.EOF
    await call.done_writing()
    assert await call.read() is grpc.aio.EOF
    assert [response.seq for response in responses] == list(range(len(responses)))
    return responses


def said(responses: list[Any]) -> str:
    return "".join(response.text.text for response in responses)


async def test_a_typed_turn_is_answered(stub: Any) -> None:
    responses = await turn(stub, Request(text="what is "), Request(text="2+2"))
    assert responses[0].started.model_id == "voicemesh-offline"
    assert said(responses) == "That is four."
    assert responses[-1].ended.ended.reason == stream_pb2.FINISH_REASON_COMPLETED
    assert responses[-1].ended.completion_token_count == 3
    assert responses[-1].ended.ended.HasField("time_to_first")


async def test_a_spoken_turn_is_heard_and_written_down(stub: Any) -> None:
    audio = speech("sum")
    blocks = [Request(audio=audio[at : at + 640]) for at in range(0, len(audio), 640)]
    responses = await turn(stub, *blocks, want_transcript=True)
    assert said(responses) == "That is forty three."
    final = [response.transcript.text for response in responses if response.transcript.final]
    assert final == ["what is twelve plus thirty one"]


async def test_typed_chinese_gets_a_clear_answer(stub: Any) -> None:
    assert said(await turn(stub, Request(text="你好"))) == NOT_ENGLISH


async def test_a_history_tells_what_was_heard(stub: Any) -> None:
    history = [
        brain_pb2.Message(role=brain_pb2.ROLE_USER, text="count to five"),
        brain_pb2.Message(role=brain_pb2.ROLE_ASSISTANT, text="one, two,", interrupted=True),
    ]
    assert said(await turn(stub, Request(text="go on"), history=history)) == "three, four, five."


async def test_what_is_too_much_fails_the_turn_and_not_the_stream(stub: Any) -> None:
    responses = await turn(stub, Request(text="x" * 40_000))
    assert responses[-1].ended.ended.reason == stream_pb2.FINISH_REASON_FAILED
    assert responses[-1].ended.ended.error.code == grpc.StatusCode.INVALID_ARGUMENT.value[0]


async def test_the_service_says_what_answers(stub: Any) -> None:
    about = await stub.GetBrain(brain_pb2.GetBrainRequest())
    assert (about.backend, about.hears_audio, about.calls_tools) == ("offline", True, True)
    assert about.free_slot_count == about.slot_count == 8


@pytest.mark.timeout(60)
async def test_health_follows_the_server_behind_it() -> None:
    model = OpenAIServer()
    await model.start()
    serving = serve("--backend", f"openai:{model.url}", "--check-interval-s", "0.1")
    try:
        async with grpc.aio.insecure_channel(await asyncio.to_thread(next, serving)) as channel:
            stub = brain_pb2_grpc.BrainServiceStub(channel)
            watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(service=SERVICE))
            assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVING
            assert said(await turn(stub, Request(text="hello"))) == "".join(SPEECH)
            await model.kill()
            assert (await watch.read()).status == health_pb2.HealthCheckResponse.NOT_SERVING
            assert await stub.Respond().code() is grpc.StatusCode.UNAVAILABLE
            await model.start()
            assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVING
            assert said(await turn(stub, Request(text="hello"))) == "".join(SPEECH)
    finally:
        await asyncio.to_thread(serving.close)
        await model.kill()
