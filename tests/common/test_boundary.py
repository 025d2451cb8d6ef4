"""What a caller is told, over real gRPC: faults, bugs, bytes that are no message, messages that are too large."""

import asyncio
import logging
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from voicemesh.codec.v1 import codec_pb2

from common.errors import Broken, MeshError, OutOfOrder, Overloaded, SequenceGap, UnknownName
from common.status import error_of_call
from tests.common.service import DECODE, ENCODE, GET_CODEC, Servicer, Stub, dialled, echo, failed, serving

JUNK = b"\xff\xff\xff\xff"
Request = codec_pb2.DecodeRequest


async def as_writer(requests: AsyncIterator[Any], context: Any) -> None:
    """`echo` in the other style: read and write calls of the context."""
    while (request := await context.read()) is not grpc.aio.EOF:
        await context.write(codec_pb2.DecodeResponse(seq=request.seq))


async def as_iterator_and_writer(requests: AsyncIterator[Any], context: Any) -> None:
    async for request in requests:
        await context.write(codec_pb2.DecodeResponse(seq=request.seq))


STYLES = pytest.mark.parametrize("handler", [echo, as_writer, as_iterator_and_writer])


def raising(error: BaseException) -> Servicer:
    async def decode(requests: AsyncIterator[Any], context: Any) -> AsyncIterator[codec_pb2.DecodeResponse]:
        yield codec_pb2.DecodeResponse()
        raise error

    async def single(request: Any, context: Any) -> None:
        raise error

    return Servicer(decode, single, single)


async def outcome_of(error: BaseException, kind: str) -> grpc.aio.AioRpcError:
    async with serving(raising(error)) as (_, channel):
        stub = Stub(channel)
        if kind == "unary":
            return await failed(stub.GetCodec(codec_pb2.GetCodecRequest()))
        return await failed(stub.Encode() if kind == "client stream" else stub.Decode())


KINDS = pytest.mark.parametrize("kind", ["unary", "client stream", "stream"])


@KINDS
async def test_a_fault_reaches_the_caller_with_reason_and_metadata(kind: str) -> None:
    error = await outcome_of(UnknownName("No voice is called “Zoë”.", voice="Zoë"), kind)
    fault = error_of_call(error)
    assert error.code() is grpc.StatusCode.NOT_FOUND
    assert (type(fault), fault.message, fault.reason) == (UnknownName, "No voice is called “Zoë”.", "UNKNOWN_NAME")
    assert fault.metadata == {"voice": "Zoë"}


@KINDS
async def test_a_full_house_says_when_to_come_back(kind: str) -> None:
    error = await outcome_of(Overloaded("All slots are taken.", retry_after_s=0.25), kind)
    fault = error_of_call(error)
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert isinstance(fault, Overloaded)
    assert fault.retry_after_s == 0.25


@KINDS
async def test_a_bug_is_internal_and_tells_nothing_but_to_the_log(kind: str, caplog: pytest.LogCaptureFixture) -> None:
    error = await outcome_of(KeyError("secret of the house"), kind)
    assert error.code() is grpc.StatusCode.INTERNAL
    assert "secret" not in str(error.details()) + str(error.trailing_metadata())
    assert error_of_call(error).reason == "BROKEN"
    (record,) = [record for record in caplog.records if record.message == "call failed"]
    assert "secret of the house" in logging.Formatter().format(record)


async def test_a_fault_among_tasks_counts_as_that_fault() -> None:
    group = BaseExceptionGroup(
        "tasks", [asyncio.CancelledError(), ExceptionGroup("inner", [SequenceGap("3 is missing.")])]
    )
    error = await outcome_of(group, "stream")
    assert error.code() is grpc.StatusCode.DATA_LOSS


async def test_a_bug_among_faults_counts_as_a_bug() -> None:
    group = ExceptionGroup("tasks", [OutOfOrder("Not now."), ZeroDivisionError()])
    error = await outcome_of(group, "stream")
    assert error.code() is grpc.StatusCode.INTERNAL


async def test_a_cancellation_that_nobody_sent_does_not_leave_the_caller_waiting() -> None:
    error = await outcome_of(asyncio.CancelledError(), "unary")
    assert error.code() is grpc.StatusCode.INTERNAL


@KINDS
async def test_a_sentence_that_quotes_its_caller_arrives_however_long_it_was(kind: str) -> None:
    error = await outcome_of(UnknownName("声" * 100_000 + "\ud800", voice="🎤" * 100_000), kind)
    fault = error_of_call(error)
    assert error.code() is grpc.StatusCode.NOT_FOUND
    assert fault.message.startswith("声声")
    assert fault.metadata["voice"].startswith("🎤🎤")


async def test_an_answer_that_is_no_message_is_our_fault(caplog: pytest.LogCaptureFixture) -> None:
    async def nothing(request: Any, context: Any) -> None:
        return None

    async with serving(Servicer(encode=nothing, get_codec=nothing)) as (_, channel):
        errors = [
            await failed(call) for call in (Stub(channel).GetCodec(codec_pb2.GetCodecRequest()), Stub(channel).Encode())
        ]
    assert [error.code() for error in errors] == [grpc.StatusCode.INTERNAL] * 2
    assert [record.message for record in caplog.records] == ["call failed"] * 2


async def test_a_code_that_the_handler_sets_stands() -> None:
    async def nothing(request: Any, context: Any) -> None:
        context.set_code(grpc.StatusCode.OUT_OF_RANGE)
        context.set_details("beyond")

    async with serving(Servicer(get_codec=nothing)) as (_, channel):
        error = await failed(Stub(channel).GetCodec(codec_pb2.GetCodecRequest()))
    assert (error.code(), error.details()) == (grpc.StatusCode.OUT_OF_RANGE, "beyond")


async def test_an_abort_of_the_handler_is_left_alone() -> None:
    async def abort(request: Any, context: Any) -> None:
        await context.abort(grpc.StatusCode.ALREADY_EXISTS, "twice", (("why", "because"),))

    async with serving(Servicer(get_codec=abort)) as (_, channel):
        error = await failed(Stub(channel).GetCodec(codec_pb2.GetCodecRequest()))
    assert (error.code(), error.details()) == (grpc.StatusCode.ALREADY_EXISTS, "twice")
    assert ("why", "because") in list(error.trailing_metadata())


@pytest.mark.parametrize(("fault", "logged"), [(Broken("The device failed."), 1), (OutOfOrder("Not now."), 0)])
async def test_only_our_own_faults_are_logged(fault: MeshError, logged: int, caplog: pytest.LogCaptureFixture) -> None:
    await outcome_of(fault, "stream")
    assert sum(record.levelno >= logging.WARNING for record in caplog.records) == logged


@STYLES
async def test_undecodable_bytes_are_invalid_at_any_place_of_a_stream(handler: Any) -> None:
    async with serving(Servicer(handler)) as (_, channel):
        call = channel.stream_stream(DECODE)()
        await call.write(Request(seq=1).SerializeToString())
        assert codec_pb2.DecodeResponse.FromString(await call.read()).seq == 1
        await call.write(JUNK)
        error = await failed(call)
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert error_of_call(error).reason == "UNDECODABLE"


async def test_undecodable_bytes_are_invalid_on_calls_with_one_answer() -> None:
    async def get_codec(request: Any, context: Any) -> Any:
        raise AssertionError("the handler must not see it")

    async def encode(requests: AsyncIterator[Any], context: Any) -> codec_pb2.EncodeResponse:
        return codec_pb2.EncodeResponse(frame_count=len([request async for request in requests]))

    async with serving(Servicer(encode=encode, get_codec=get_codec)) as (_, channel):
        unary = await failed(channel.unary_unary(GET_CODEC)(JUNK))
        streamed = await failed(channel.stream_unary(ENCODE)(iter([JUNK])))
    assert error_of_call(unary).reason == error_of_call(streamed).reason == "UNDECODABLE"
    assert unary.code() is streamed.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_text_that_is_not_utf_8_is_undecodable() -> None:
    async with serving(Servicer(echo)) as (_, channel):
        call = channel.stream_stream(DECODE)()
        await call.write(b"\x0a\x02\xc3\x28")
        error = await failed(call)
    assert error_of_call(error).reason == "UNDECODABLE"


@STYLES
async def test_a_message_of_16_mb_is_refused_and_others_do_not_notice(handler: Any) -> None:
    async with serving(Servicer(handler)) as (_, channel):
        neighbour, stranger = channel.stream_stream(DECODE)(), channel.stream_stream(DECODE)()
        await neighbour.write(Request(seq=1).SerializeToString())
        await neighbour.read()
        await stranger.write(bytes(16 * 2**20))
        error = await failed(stranger)
        await neighbour.write(Request(seq=2).SerializeToString())
        assert codec_pb2.DecodeResponse.FromString(await neighbour.read()).seq == 2
        neighbour.cancel()
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert error_of_call(error).reason == "TOO_LARGE"


async def test_a_message_beyond_what_grpc_takes_ends_its_own_call_only() -> None:
    async with serving(Servicer(echo)) as (_, channel):
        neighbour, stranger = channel.stream_stream(DECODE)(), channel.stream_stream(DECODE)()
        await neighbour.write(Request(seq=1).SerializeToString())
        await stranger.write(bytes(21 * 2**20))
        error = await failed(stranger)
        await neighbour.read()
        await neighbour.write(Request(seq=2).SerializeToString())
        assert codec_pb2.DecodeResponse.FromString(await neighbour.read()).seq == 2
        neighbour.cancel()
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert error_of_call(error).reason == "TOO_LARGE"


async def test_a_method_can_take_more_or_less_than_the_others() -> None:
    async def get_codec(request: Any, context: Any) -> codec_pb2.GetCodecResponse:
        return codec_pb2.GetCodecResponse()

    async with serving(Servicer(echo, get_codec=get_codec), GetCodec=16, Decode=8 * 2**20) as (_, channel):
        error = await failed(channel.unary_unary(GET_CODEC)(bytes(17)))
        large = Request(seq=5, session_id="x" * 5 * 2**20)
        call = Stub(channel).Decode()
        await call.write(large)
        assert (await call.read()).seq == 5
        call.cancel()
    assert error_of_call(error).metadata == {"max_bytes": "16"}


@pytest.mark.parametrize("style", ["generator", "writer", "waiting"])
async def test_a_caller_who_hangs_up_is_no_error_and_leaves_nothing_behind(
    style: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    begun, cleaned_up = asyncio.Event(), asyncio.Event()

    async def generate(requests: AsyncIterator[Any], context: Any) -> AsyncIterator[codec_pb2.DecodeResponse]:
        try:
            while True:
                yield codec_pb2.DecodeResponse()
                begun.set()
        finally:
            cleaned_up.set()

    async def write(requests: AsyncIterator[Any], context: Any) -> None:
        try:
            while True:
                await context.write(codec_pb2.DecodeResponse())
                begun.set()
        finally:
            cleaned_up.set()

    async def wait(requests: AsyncIterator[Any], context: Any) -> None:
        try:
            begun.set()
            await asyncio.Event().wait()
        finally:
            cleaned_up.set()

    handler = {"generator": generate, "writer": write, "waiting": wait}[style]
    async with serving(Servicer(handler)) as (server, channel):
        call = Stub(channel).Decode()
        await begun.wait()
        call.cancel()
        await cleaned_up.wait()
        await server.idle()
        assert server.running_count == 0
    assert [record.message for record in caplog.records if record.levelno > logging.DEBUG] == []


def tasks_of_calls() -> set[asyncio.Task[Any]]:
    """The tasks in which grpc.aio serves calls."""
    return {task for task in asyncio.all_tasks() if task.get_name().startswith(("rpc_task", "HandleExceptions"))}


async def test_a_thousand_streams_leave_no_task_behind() -> None:
    async with serving(Servicer(echo)) as (server, channel):
        before = len(asyncio.all_tasks())
        for _ in range(10):
            calls = [Stub(channel).Decode() for _ in range(100)]
            for call in calls:
                await call.write(Request(seq=7))
            for call in calls[:50]:
                assert (await call.read()).seq == 7
            for call in calls:
                call.cancel()
        last = Stub(channel).Decode()  # on the same connection: when it is answered, the others have all arrived
        await last.write(Request(seq=8))
        await last.read()
        last.cancel()
        await asyncio.wait(tasks_of_calls())
        assert server.running_count == 0
        assert len(asyncio.all_tasks()) <= before


async def test_a_connection_that_breaks_ends_its_streams() -> None:
    ended = asyncio.Event()

    async def decode(requests: AsyncIterator[Any], context: Any) -> AsyncIterator[codec_pb2.DecodeResponse]:
        try:
            yield codec_pb2.DecodeResponse()
            await asyncio.Event().wait()
        finally:
            ended.set()

    async with serving(Servicer(decode)) as (server, _):
        other = dialled(server.address)
        call = Stub(other).Decode()
        await call.read()
        await other.close()
        await ended.wait()
        await server.idle()
