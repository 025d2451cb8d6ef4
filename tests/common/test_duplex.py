"""The edge of a stream in memory and virtual time, with the tone-coding talker behind it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from voicemesh.stream.v1 import stream_pb2
from voicemesh.tts_lm.v1 import tts_lm_pb2

from common.duplex import MAX_ANSWERS_DUE, Edge, Limits
from common.errors import Broken, MeshError, NotReady, OutOfOrder, OutOfTime, Overloaded
from common.observer import NOBODY
from common.status import cause_of, error_of
from common.stream import FinishReason
from common.telemetry import Telemetry
from services.tts_lm.server import GenerateStage
from tests.fakes import Refusing, ToneTtsLm, text_of
from tests.virtual_time import run

FOREVER = Limits(idle_s=1e6, silent_utterance_s=1e6, slow_reader_s=1e6)


def start(**marks: Any) -> tts_lm_pb2.GenerateRequest:
    return tts_lm_pb2.GenerateRequest(start=tts_lm_pb2.GenerateStart(), **marks)


def text(words: str, **marks: Any) -> tts_lm_pb2.GenerateRequest:
    return tts_lm_pb2.GenerateRequest(text=tts_lm_pb2.TextDelta(text=words), **marks)


def flush(**marks: Any) -> tts_lm_pb2.GenerateRequest:
    return tts_lm_pb2.GenerateRequest(flush=stream_pb2.Flush(), **marks)


def stop(**marks: Any) -> tts_lm_pb2.GenerateRequest:
    return tts_lm_pb2.GenerateRequest(stop=stream_pb2.Stop(), **marks)


def reset(**marks: Any) -> tts_lm_pb2.GenerateRequest:
    return tts_lm_pb2.GenerateRequest(reset=stream_pb2.Reset(), **marks)


class Caller:
    """The other side of one stream, in memory."""

    def __init__(self, engine: Any = None, limits: Limits = FOREVER, observer: Any = NOBODY) -> None:
        self.engine = engine or ToneTtsLm(step_s=0.01)
        self.heard: list[tts_lm_pb2.GenerateResponse] = []
        self.reading = asyncio.Event()
        self.reading.set()
        self.drain = asyncio.Event()
        self._said: asyncio.Queue[Any] = asyncio.Queue()
        self._edge = Edge(limits, Telemetry.off(), observer, self.drain)
        self.call = asyncio.ensure_future(self._serve())

    async def _serve(self) -> MeshError | None:
        """None when the stream ended OK, else what its status is made of."""
        try:
            await self._edge.serve(GenerateStage(self.engine), self._requests(), self)
        except BaseExceptionGroup as group:
            cause = cause_of(group)
            if not isinstance(cause, MeshError):
                raise
            return cause
        return None

    async def _requests(self) -> AsyncIterator[Any]:
        while (request := await self._said.get()) is not None:
            yield request

    async def send_initial_metadata(self, metadata: tuple[()]) -> None:
        pass

    async def write(self, message: Any) -> None:
        await self.reading.wait()
        self.heard.append(message)

    def say(self, *requests: Any) -> None:
        for request in requests:
            self._said.put_nowait(request)

    def close(self) -> None:
        self._said.put_nowait(None)

    @property
    def payloads(self) -> list[str]:
        return [response.WhichOneof("payload") for response in self.heard]

    @property
    def ends(self) -> list[tuple[int, int, FinishReason]]:
        return [(r.epoch, r.utterance, FinishReason(r.ended.reason)) for r in self.heard if r.HasField("ended")]

    def spoken(self, epoch: int, utterance: int = 0) -> str:
        mine = [r.frames for r in self.heard if (r.epoch, r.utterance) == (epoch, utterance) and r.HasField("frames")]
        return text_of([f.codes[i : i + 16] for f in mine for i in range(0, len(f.codes), 16)])


Scenario = Callable[[Caller], Awaitable[None]]


def after(scenario: Scenario, engine: Any = None, limits: Limits = FOREVER) -> tuple[Caller, MeshError | None]:
    """The caller after its stream has ended, and how it ended."""

    async def play() -> tuple[Caller, MeshError | None]:
        caller = Caller(engine, limits)
        await scenario(caller)
        error = await caller.call
        assert caller.engine.pool.in_use_count == 0
        return caller, error

    return run(play())


def said(*requests: Any, close: bool = True) -> Scenario:
    async def scenario(caller: Caller) -> None:
        caller.say(*requests)
        if close:
            caller.close()

    return scenario


def test_an_utterance_starts_speaks_and_ends_once():
    caller, error = after(said(start(), text("abc"), flush()))
    assert error is None
    assert caller.spoken(0) == "abc"
    assert caller.payloads == ["started", *["frames"] * 6, "ended"]
    assert [r.seq for r in caller.heard] == list(range(8))
    assert caller.heard[0].session_id


def test_the_end_says_how_far_it_got():
    ended = after(said(start(), text("abc"), flush()))[0].heard[-1].ended
    assert (ended.text_token_count, ended.frame_count, ended.sample_count) == (3, 6, 0)
    assert ended.time_to_first.ToNanoseconds() == 10_000_000
    assert ended.compute_time.ToNanoseconds() == 60_000_000


def test_an_utterance_without_text_ends_at_once_without_a_first():
    ended = after(said(start(), flush()))[0].heard[-1].ended
    assert ended.reason == FinishReason.COMPLETED
    assert not ended.HasField("time_to_first")


def test_utterances_of_an_epoch_are_spoken_one_after_another():
    requests = [message for words in ("ab", "cd", "ef") for message in (start(epoch=0), text(words), flush())]
    caller, _ = after(said(*requests))
    assert [caller.spoken(0, u) for u in range(3)] == ["ab", "cd", "ef"]
    assert [u for u, _ in groups(caller)] == [0, 1, 2]


def groups(caller: Caller) -> list[tuple[int, int]]:
    """Utterances as they were heard, with how many messages in a row; one that stands there twice is interleaved."""
    found: list[tuple[int, int]] = []
    for response in caller.heard:
        if found and found[-1][0] == response.utterance:
            found[-1] = (response.utterance, found[-1][1] + 1)
        else:
            found.append((response.utterance, 1))
    return found


def test_nothing_but_the_end_is_heard_after_stop():
    async def scenario(caller: Caller) -> None:
        caller.say(start(), text("abcdefgh"), flush())
        await asyncio.sleep(0.035)
        caller.say(stop())
        await asyncio.sleep(0)
        count = len(caller.heard)
        await asyncio.sleep(1)
        assert caller.payloads[count:] == ["ended"]
        caller.close()

    caller, error = after(scenario)
    assert error is None
    assert caller.ends == [(0, 0, FinishReason.CANCELLED)]


def test_what_waits_unread_when_stop_comes_is_not_delivered_later():
    async def scenario(caller: Caller) -> None:
        caller.say(start(), text("abcdefgh"), flush())
        await asyncio.sleep(0.02)
        caller.reading.clear()
        await asyncio.sleep(1)
        caller.say(stop())
        await asyncio.sleep(1)
        caller.reading.set()
        caller.close()

    caller, _ = after(scenario)
    assert caller.payloads[-2:] == ["frames", "ended"]  # the one that was being written when stop came, and the end
    assert len(caller.heard) < 6


class Deaf(ToneTtsLm):
    """A talker that breaks its promise: it goes on for a while after `cancel`."""

    def submit(self, request: Any) -> Any:
        utterance = super().submit(request)
        cancel = utterance.cancel
        utterance.cancel = lambda: asyncio.get_running_loop().call_later(0.05, cancel)  # type: ignore[method-assign]
        return utterance


def test_what_an_engine_still_says_after_stop_is_not_passed_on():
    async def scenario(caller: Caller) -> None:
        caller.say(start(), text("abcdefgh"), flush())
        await asyncio.sleep(0.035)
        caller.say(stop())
        caller.close()

    caller, _ = after(scenario, Deaf(step_s=0.01))
    assert caller.payloads == ["started", "frames", "frames", "frames", "ended"]
    assert caller.ends == [(0, 0, FinishReason.CANCELLED)]


def test_a_slow_reader_stops_the_engine_and_loses_nothing():
    async def scenario(caller: Caller) -> None:
        caller.reading.clear()
        caller.say(start(), text("abcdef"), flush())
        await asyncio.sleep(10)
        assert caller.heard == []
        caller.reading.set()
        caller.close()

    assert after(scenario)[0].spoken(0) == "abcdef"


def test_a_newer_epoch_ends_the_older_one_before_it_starts():
    async def scenario(caller: Caller) -> None:
        caller.say(start(), text("abcdefgh"), flush())
        await asyncio.sleep(0.02)
        caller.say(start(), text("xyz"), flush())
        caller.close()

    caller, _ = after(scenario)
    assert caller.ends == [(0, 0, FinishReason.CANCELLED), (1, 0, FinishReason.COMPLETED)]
    assert caller.spoken(1) == "xyz"
    assert [r.epoch for r in caller.heard] == sorted(r.epoch for r in caller.heard)


def test_reset_is_answered_after_every_end():
    caller, _ = after(said(start(), text("ab"), flush(), start(epoch=0), text("cd"), reset()))
    assert [p for p in caller.payloads if p not in ("started", "frames")] == ["ended", "ended", "reset_done"]
    assert {reason for _, _, reason in caller.ends} == {FinishReason.CANCELLED}


def test_reset_before_anything_is_answered():
    caller, error = after(said(reset()))
    assert caller.payloads == ["reset_done"]
    assert error is None


def test_stop_before_anything_is_not_answered():
    caller, error = after(said(stop()))
    assert caller.heard == []
    assert error is None


def test_half_close_finishes_what_was_flushed_and_cancels_what_was_not():
    caller, error = after(said(start(), text("ab"), flush(), start(epoch=0), text("cd")))
    assert error is None
    assert caller.spoken(0) == "ab"
    assert caller.ends == [(0, 0, FinishReason.COMPLETED), (0, 1, FinishReason.CANCELLED)]


def test_a_fault_of_an_utterance_leaves_the_stream_alive():
    bad = tts_lm_pb2.GenerateRequest(start=tts_lm_pb2.GenerateStart(voice=tts_lm_pb2.Voice(name="nobody")))
    caller, error = after(said(bad, text("lost"), flush(), start(), text("ok"), flush()))
    assert error is None
    assert caller.payloads[0] == "ended"
    fault = error_of(caller.heard[0].ended.error)
    assert fault.reason == "UNKNOWN_NAME"
    assert caller.spoken(1) == "ok"


def test_a_fault_in_the_middle_ends_that_utterance_and_drops_what_was_on_its_way():
    ids = tts_lm_pb2.GenerateRequest(text=tts_lm_pb2.TextDelta(ids=tts_lm_pb2.TokenIds(ids=[7])))
    caller, error = after(said(start(), text("ab"), ids, text("cd"), flush(), start(), text("ok"), flush()))
    assert error is None
    assert caller.ends == [(0, 0, FinishReason.FAILED), (1, 0, FinishReason.COMPLETED)]


def test_a_full_house_is_told_in_the_end_of_the_utterance():
    engine = Refusing(ToneTtsLm(), Overloaded("no slot", retry_after_s=0.25))
    caller, error = after(said(start(), text("ab"), flush()), engine)
    fault = error_of(caller.heard[0].ended.error)
    assert error is None
    assert isinstance(fault, Overloaded)
    assert (fault.reason, fault.retry_after_s) == ("NO_SLOT", 0.25)


def test_text_after_flush_ends_the_stream_and_frees_the_slot():
    _, error = after(said(start(), text("ab"), flush(), text("cd"), close=False))
    assert isinstance(error, OutOfOrder)


def test_utterances_beyond_the_limit_fail_in_their_turn():
    more = [request for _ in range(4) for request in (start(epoch=0), text("b"), flush())]
    caller, error = after(said(start(), text("a"), flush(), *more), limits=Limits(pending_utterances=2))
    assert error is None
    reasons = [reason for _, _, reason in caller.ends]
    assert reasons == [FinishReason.COMPLETED] * 3 + [FinishReason.FAILED] * 2
    assert [u for _, u, _ in caller.ends] == [0, 1, 2, 3, 4]


def test_endless_starts_that_nobody_reads_end_the_stream():
    async def scenario(caller: Caller) -> None:
        caller.reading.clear()
        caller.say(*[start() for _ in range(MAX_ANSWERS_DUE + 1)])

    _, error = after(scenario)
    assert isinstance(error, Overloaded)


def test_too_much_said_to_a_waiting_utterance_fails_it_alone():
    caller, error = after(
        said(start(), text("a"), flush(), start(epoch=0), *[text("b" * 100)] * 30, flush()),
        limits=Limits(backlog_bytes=1024),
    )
    assert error is None
    assert [reason for _, _, reason in caller.ends] == [FinishReason.COMPLETED, FinishReason.FAILED]


def test_an_idle_stream_ends_out_of_time():
    async def scenario(caller: Caller) -> None:
        caller.say(start(), text("a"), flush())
        await asyncio.sleep(4.9)
        assert not caller.call.done()

    caller, error = after(scenario, limits=Limits(idle_s=5, silent_utterance_s=60))
    assert isinstance(error, OutOfTime)
    assert caller.ends == [(0, 0, FinishReason.COMPLETED)]


def test_an_utterance_may_be_silent_longer_than_a_stream_idle_but_not_for_ever():
    async def scenario(caller: Caller) -> None:
        caller.say(start())
        await asyncio.sleep(59)
        assert not caller.call.done()

    _, error = after(scenario, limits=Limits(idle_s=5, silent_utterance_s=60))
    assert isinstance(error, OutOfTime)


def test_a_reader_that_never_reads_loses_its_stream():
    async def scenario(caller: Caller) -> None:
        caller.reading.clear()
        caller.say(start(), text("abc"), flush())

    _, error = after(scenario, limits=Limits(idle_s=100, silent_utterance_s=100, slow_reader_s=7))
    assert isinstance(error, Overloaded)
    assert error.reason == "SLOW_READER"


def test_a_draining_service_finishes_what_runs_takes_nothing_new_and_ends_the_stream():
    async def scenario(caller: Caller) -> None:
        caller.say(start(), text("abcdef"), flush())
        await asyncio.sleep(0.02)
        caller.drain.set()
        caller.say(start(epoch=0), text("no"), flush())

    caller, error = after(scenario)
    assert isinstance(error, NotReady)
    assert error.reason == "DRAINING"
    assert caller.spoken(0) == "abcdef"
    assert error_of(caller.heard[-1].ended.error).reason == "DRAINING"


class Measures:
    """An observer that keeps what it is told."""

    def __init__(self) -> None:
        self.told: list[tuple[str, Any]] = []

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *args, **kwargs: self.told.append((name, (*args, *kwargs.values())))

    def of(self, name: str) -> list[Any]:
        return [what for told, what in self.told if told == name]


def test_the_edge_tells_what_it_dropped_cancelled_and_ended():
    measures = Measures()

    async def play() -> None:
        caller = Caller(observer=measures)
        caller.say(start(epoch=1, seq=0), text("ab", seq=1), text("ab", seq=1), text("old", epoch=0), flush())
        await asyncio.sleep(1)
        caller.say(start(), text("cd"), stop())
        caller.close()
        await caller.call

    run(play())
    assert (len(measures.of("repeated")), len(measures.of("stale"))) == (1, 1)
    assert len(measures.of("cancelled")) == 1
    done, cut = measures.of("ended")
    assert done == ("COMPLETED", pytest.approx(0.01), pytest.approx(0.05), pytest.approx(0.4))
    assert cut[0] == "CANCELLED"
    assert measures.of("slots")[0] == (1, 8)
    assert measures.of("slots")[-1] == (0, 8)


def test_a_caller_that_goes_away_leaves_nothing_behind():
    async def play() -> None:
        caller = Caller()
        caller.say(start(), text("abcdef"), flush(), start(epoch=0), text("cd"))
        await asyncio.sleep(0.02)
        caller.call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await caller.call
        assert caller.engine.pool.in_use_count == 0
        assert asyncio.all_tasks() == {asyncio.current_task()}

    run(play())


def test_a_bug_of_the_engine_ends_the_stream_and_is_no_mesh_error():
    async def play() -> None:
        caller = Caller(Refusing(ToneTtsLm(), ZeroDivisionError("bug")))  # type: ignore[arg-type]
        caller.say(start())
        with pytest.raises(ExceptionGroup) as caught:
            await caller.call
        assert isinstance(cause_of(caught.value), ZeroDivisionError)
        assert not isinstance(cause_of(caught.value), Broken)

    run(play())
