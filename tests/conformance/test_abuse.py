"""What a stranger may do to a service, and that nobody else notices."""

from __future__ import annotations

import asyncio
import gc

import grpc
import pytest

from common.duplex import Duplex
from common.status import error_of_call
from common.stream import FinishReason, Kind
from tests.conformance.house import House, Stream, house, until

UTTERANCE = (Kind.START, Kind.INPUT, Kind.INPUT, Kind.FLUSH)


async def is_well(home: House) -> bool:
    """Whether a new caller is served."""
    stream = home.stream()
    await stream.say_all(UTTERANCE)
    return await stream.finish() == "OK" and stream.product() == home.dialect.whole(2)


def raw(home: House) -> grpc.aio.StreamStreamCall:
    """A stream that sends any bytes."""
    read = home.dialect.response.FromString
    return home.channel.stream_stream(home.dialect.path, request_serializer=bytes, response_deserializer=read)()


async def status_of(call: grpc.aio.StreamStreamCall) -> tuple[str, str]:
    """Hear a stream to its end: the names of its status and of its reason."""
    try:
        async with asyncio.timeout(60):
            while await call.read() is not grpc.aio.EOF:
                pass
    except grpc.aio.AioRpcError as error:
        return error.code().name, error_of_call(error).reason
    return (await call.code()).name, ""


@pytest.mark.parametrize("nonsense", [b"\xff\xff\xff", b"\x0a\xff", b"\x08"])
async def test_bytes_that_are_no_message_are_told_so(home, nonsense):
    call = raw(home)
    await call.write(home.dialect.say(Kind.START).SerializeToString())
    await call.write(nonsense)
    assert await status_of(call) == ("INVALID_ARGUMENT", "UNDECODABLE")
    assert await is_well(home)


async def test_a_message_of_16_mb_is_told_so(home):
    call = raw(home)
    huge = home.dialect.request(session_id="x" * (16 * 2**20), **home.dialect.start())
    await call.write(huge.SerializeToString())
    assert await status_of(call) == ("INVALID_ARGUMENT", "TOO_LARGE")
    assert await is_well(home)


async def test_a_session_id_without_end_is_invalid(home):
    stream = home.stream()
    await stream.say(Kind.START, session_id="y" * 257)
    assert await stream.listen() == "INVALID_ARGUMENT"
    assert stream.fault.reason == "INVALID"


@pytest.mark.timeout(90)
async def test_a_thousand_streams_opened_and_dropped_leave_nothing_behind(service):
    async with house(service, step_s=0.02, slot_count=2000) as home:
        assert await is_well(home)
        await home.empty()
        tasks = len(asyncio.all_tasks())

        async def drop(number: int) -> None:
            stream = home.stream()
            await stream.say_all(UTTERANCE[: 1 + number % 4])
            if number % 3:
                await stream.hear()
            stream.call.cancel()

        for batch in range(20):
            await asyncio.gather(*(drop(50 * batch + number) for number in range(50)))
        await home.empty()
        await until(lambda: len(asyncio.all_tasks()) <= tasks)
        await until(lambda: not alive(Duplex))
        assert await is_well(home)


def alive(kind: type) -> bool:
    gc.collect()
    return any(type(thing) is kind for thing in gc.get_objects())


# The answers of the others are too small to fill a connection; tests/common/test_duplex.py does it in memory.
@pytest.mark.parametrize("service", ["codec", "gateway"])
async def test_a_caller_that_does_not_read_is_cut_off_and_its_slot_freed(service):
    async with house(service, slow_reader_s=0.3) as home:
        stream = home.stream()
        await stream.say_all((Kind.START, *[Kind.INPUT] * 3000, Kind.FLUSH))
        await home.empty()
        other = home.stream()
        await other.say_all(UTTERANCE)
        assert await other.finish() == "OK"
        assert await stream.listen() == "RESOURCE_EXHAUSTED"
        assert stream.fault.reason == "SLOW_READER"


async def test_a_slow_reader_loses_nothing(service):
    async with house(service) as home:
        slow = home.stream()
        await slow.say_all((Kind.START, *[Kind.INPUT] * 1500, Kind.FLUSH))
        assert await is_well(home)
        assert await slow.finish() == "OK"
        assert slow.product() == home.dialect.whole(1500)


async def test_a_flood_of_starts_ends_only_its_own_stream(home):
    stream = home.stream()
    ended = asyncio.ensure_future(_ends(stream))
    for _ in range(2000):
        await stream.say(Kind.START)
    await stream.half_close()
    reasons = await ended
    assert set(reasons) <= {FinishReason.CANCELLED, FinishReason.FAILED}
    assert stream.history.status in ("OK", "RESOURCE_EXHAUSTED")
    assert await is_well(home)


async def _ends(stream: Stream) -> list[FinishReason]:
    await stream.listen()
    return [heard.reason for heard in stream.history.heard if heard.kind == "ended"]
