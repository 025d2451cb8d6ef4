"""The rules of a stream, over real gRPC, at every service."""

from __future__ import annotations

import asyncio

import pytest

from common.errors import MeshError
from common.stream import FinishReason, Kind
from tests.conformance.house import House, Stream, house
from tests.guarantees import check

START, INPUT, FLUSH, STOP, RESET = Kind.START, Kind.INPUT, Kind.FLUSH, Kind.STOP, Kind.RESET
UTTERANCE = (START, INPUT, INPUT, FLUSH)

WITH_RESET = ["codec", "gateway", "tts_lm"]

BEFORE = {
    "fresh": (),
    "started": (START,),
    "fed": (START, INPUT),
    "flushed": UTTERANCE,
    "stopped": (START, INPUT, STOP),
    "stopped twice": (START, STOP, STOP),
    "in its second epoch": (*UTTERANCE, START, INPUT),
    "reset": (START, RESET),
}


def reasons(stream: Stream) -> list[FinishReason]:
    return [heard.reason for heard in stream.history.heard if heard.kind == "ended"]


async def spoken(stream: Stream, home: House) -> None:
    """Whatever came before: the stream is usable, and a whole utterance is heard as it was said."""
    before = len(reasons(stream))
    await stream.say_all((START, INPUT, INPUT, FLUSH))
    assert await stream.finish() == "OK"
    assert reasons(stream)[before:][-1] is FinishReason.COMPLETED
    assert stream.product() == home.dialect.whole(2)
    check(stream.history)


async def test_a_caller_needs_no_marks(home):
    stream = home.stream()
    await spoken(stream, home)
    assert {heard.epoch for heard in stream.history.heard} == {0}


async def test_marks_that_are_given_are_kept(home):
    stream = home.stream()
    for seq, kind in enumerate(UTTERANCE):
        await stream.send(home.dialect.say(kind, max(0, seq - 1), session_id="mine", epoch=7, seq=seq, utterance=3))
    assert await stream.finish() == "OK"
    assert {(heard.session_id, heard.epoch) for heard in stream.history.heard} == {("mine", 7)}
    assert {heard.utterance for heard in stream.history.heard} <= {3, None}
    assert stream.product() == home.dialect.whole(2)


async def test_a_repeat_is_heard_once(home):
    stream = home.stream()
    for seq, kind in enumerate(UTTERANCE):
        request = home.dialect.say(kind, max(0, seq - 1), seq=seq)
        await stream.send(request)
        await stream.send(request)
    assert await stream.finish() == "OK"
    assert stream.product() == home.dialect.whole(2)


async def test_a_gap_is_data_loss(home):
    stream = home.stream()
    await stream.send(home.dialect.say(START, seq=0))
    await stream.send(home.dialect.say(INPUT, seq=2))
    assert await stream.listen() == "DATA_LOSS"
    assert stream.fault.reason == "SEQUENCE_GAP"
    assert stream.fault.metadata == {"expected": "1", "got": "2"}


async def test_an_older_epoch_is_dropped_and_the_newer_one_is_not_disturbed(home):
    stream = home.stream()
    await stream.say(START, epoch=5)
    for kind in (START, INPUT, FLUSH, STOP):
        await stream.say(kind, epoch=4)
    await stream.say_all((INPUT, INPUT, FLUSH))
    assert await stream.finish() == "OK"
    assert stream.product() == home.dialect.whole(2)
    assert {heard.epoch for heard in stream.history.heard} == {5}


async def test_a_newer_epoch_ends_the_older_one_first(home):
    stream = home.stream()
    await stream.say_all((START, INPUT))
    await stream.hear_until("started")
    await spoken(stream, home)
    assert reasons(stream) == [FinishReason.CANCELLED, FinishReason.COMPLETED]


@pytest.mark.parametrize("state", [state for state in BEFORE if state != "reset"])
async def test_stop_is_legal_in_any_state_and_leaves_the_stream_usable(home, state):
    stream = home.stream()
    await stream.say_all(BEFORE[state])
    await stream.say(STOP)
    await spoken(stream, home)


@pytest.mark.parametrize("service", WITH_RESET)
@pytest.mark.parametrize("state", BEFORE)
async def test_reset_is_legal_in_any_state_and_answered_after_every_end(home, state):
    stream = home.stream()
    await stream.say_all(BEFORE[state])
    await stream.say(RESET)
    await spoken(stream, home)


@pytest.mark.parametrize("kind", [INPUT, FLUSH])
async def test_nothing_comes_before_start(home, kind):
    stream = home.stream()
    await stream.say(kind)
    assert await stream.listen() == "FAILED_PRECONDITION"
    assert stream.fault.reason == "OUT_OF_ORDER"


@pytest.mark.parametrize("service", WITH_RESET)
@pytest.mark.parametrize("kind", [INPUT, FLUSH])
async def test_after_reset_only_start_may_come(home, kind):
    stream = home.stream()
    await stream.say_all((START, INPUT, RESET, kind))
    assert await stream.listen() == "FAILED_PRECONDITION"


@pytest.mark.parametrize("kind", [INPUT, FLUSH])
async def test_nothing_but_controls_comes_after_flush(home, kind):
    stream = home.stream()
    await stream.say_all((*UTTERANCE, kind))
    assert await stream.listen() == "FAILED_PRECONDITION"


async def test_what_is_said_to_a_stopped_epoch_is_dropped(home):
    stream = home.stream()
    await stream.say_all((START, INPUT, STOP, INPUT, INPUT, FLUSH, INPUT))
    await stream.say(START, epoch=0)
    await spoken(stream, home)
    assert reasons(stream) == [FinishReason.CANCELLED, FinishReason.COMPLETED]


async def test_stop_silences_what_runs_with_one_end(service):
    async with house(service, step_s=0.02) as home:
        stream = home.stream()
        await stream.say_all((START, *[INPUT] * 50, FLUSH))
        await stream.hear_until("product")
        await stream.say(STOP)
        ended = await stream.hear_until("ended")
        assert ended.reason is FinishReason.CANCELLED
        await home.empty()
        await spoken(stream, home)


async def test_half_close_lets_the_flushed_finish(home):
    stream = home.stream()
    await stream.say_all(UTTERANCE)
    assert await stream.finish() == "OK"
    assert reasons(stream) == [FinishReason.COMPLETED]
    check(stream.history)


async def test_half_close_cancels_what_was_not_flushed(home):
    stream = home.stream()
    await stream.say_all((START, INPUT))
    await stream.hear_until("started")
    assert await stream.finish() == "OK"
    assert reasons(stream) == [FinishReason.CANCELLED]
    check(stream.history)


async def test_half_close_of_a_stream_that_said_nothing_is_ok(home):
    stream = home.stream()
    assert await stream.finish() == "OK"
    assert stream.history.heard == []


async def test_a_caller_that_goes_away_frees_everything(service):
    async with house(service, step_s=0.02) as home:
        stream = home.stream()
        await stream.say_all((START, *[INPUT] * 50, FLUSH))
        await stream.hear_until("product")
        assert home.slots_in_use > 0
        stream.call.cancel()
        await home.empty()


@pytest.mark.parametrize("service", ["brain"])
async def test_a_turn_has_its_epoch_to_itself(home):
    stream = home.stream()
    await stream.say_all(UTTERANCE)
    await stream.say(START, epoch=0)
    assert await stream.listen() == "FAILED_PRECONDITION"


@pytest.mark.parametrize("service", WITH_RESET)
async def test_utterances_of_one_epoch_are_heard_one_after_another(home):
    stream = home.stream()
    for count in (1, 2, 3):
        await stream.say(START, epoch=0)
        await stream.say_all((*[INPUT] * count, FLUSH))
    assert await stream.finish() == "OK"
    assert [stream.product(i) for i in range(3)] == [home.dialect.whole(count) for count in (1, 2, 3)]
    check(stream.history)


async def test_a_fault_of_one_utterance_is_told_in_its_end_and_the_stream_lives_on(home):
    stream = home.stream()
    await stream.send(home.dialect.request(**home.dialect.faulty_start()))
    await stream.send(home.dialect.say(INPUT))
    await stream.send(home.dialect.say(FLUSH))
    ended = await stream.hear_until("ended")
    assert ended.reason is FinishReason.FAILED
    assert isinstance(ended.error, MeshError)
    assert ended.error.status in ("NOT_FOUND", "INVALID_ARGUMENT")
    await stream.send(home.dialect.say(START))
    await stream.send(home.dialect.say(INPUT))
    await stream.send(home.dialect.say(FLUSH))
    assert await stream.finish() == "OK"
    assert stream.product() == home.dialect.whole(1)


async def test_a_full_house_refuses_at_once_and_says_when_to_come_back(service):
    async with house(service, slot_count=1) as home:
        first, second = home.stream(), home.stream()
        await first.say_all((START, INPUT))
        await first.hear_until("started")
        await second.say_all((START, INPUT, FLUSH))
        ended = await second.hear_until("ended")
        assert ended.error.status == "RESOURCE_EXHAUSTED"
        assert ended.error.reason == "NO_SLOT"
        assert ended.error.retry_after_s > 0
        await spoken(first, home)
        await home.empty()
        await spoken(second, home)


async def test_a_request_without_a_payload_is_invalid(home):
    stream = home.stream()
    await stream.send(home.dialect.request(epoch=1))
    assert await stream.listen() == "INVALID_ARGUMENT"
    assert stream.fault.reason == "INVALID"


async def test_a_stream_belongs_to_one_session(home):
    stream = home.stream()
    await stream.send(home.dialect.say(START, session_id="a"))
    await stream.send(home.dialect.say(INPUT, session_id="b"))
    assert await stream.listen() == "INVALID_ARGUMENT"


async def test_a_session_that_is_not_named_is_assigned_and_no_two_streams_share_it(home):
    sessions = set()
    for _ in range(3):
        stream = home.stream()
        await stream.say_all(UTTERANCE)
        await stream.finish()
        sessions |= {heard.session_id for heard in stream.history.heard}
    assert len(sessions) == 3


async def test_an_idle_stream_runs_out_of_time(service):
    async with house(service, idle_s=0.1) as home:
        stream = home.stream()
        await stream.say_all(UTTERANCE)
        assert await stream.listen() == "DEADLINE_EXCEEDED"
        assert reasons(stream) == [FinishReason.COMPLETED]


async def test_a_draining_service_finishes_what_runs_and_then_ends_every_stream(service):
    async with house(service, step_s=0.01) as home:
        idle, busy = home.stream(), home.stream()
        await idle.say_all(UTTERANCE)
        await idle.hear_until("ended")
        await busy.say_all((START, *[INPUT] * 10, FLUSH))
        await busy.hear_until("product")
        draining = asyncio.create_task(home.server.drain(10))
        assert await idle.listen() == "UNAVAILABLE"
        assert await busy.listen() == "UNAVAILABLE"
        await draining
        assert (idle.fault.reason, busy.fault.reason) == ("DRAINING", "DRAINING")
        assert reasons(busy) == [FinishReason.COMPLETED]
        assert busy.product() == home.dialect.whole(10)


async def test_many_streams_at_once_hear_each_their_own(home):
    async def one(count: int) -> None:
        stream = home.stream()
        await stream.say_all((START, *[INPUT] * count, FLUSH))
        assert await stream.finish() == "OK"
        assert stream.product() == home.dialect.whole(count)
        check(stream.history)

    async with asyncio.TaskGroup() as group:
        for count in range(1, 25):
            group.create_task(one(count))
