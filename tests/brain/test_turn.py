"""Limits, deadlines and idle times of a turn, in virtual time, over a backend that does as it is told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass, field

import pytest

from common.errors import Broken, InvalidRequest, MeshError, NotReady, OutOfOrder, OutOfTime, Overloaded
from common.stream import FinishReason
from services.brain.admission import BrainEngine
from services.brain.backend import BackendInfo, Call, Delta, Finish, Opening, Piece, Usage
from services.brain.limits import BrainLimits
from services.brain.prompt import Conversation
from services.brain.types import (
    AudioFormat,
    BrainSampling,
    Ended,
    Message,
    Role,
    TextPiece,
    ToolCall,
    ToolCallRequest,
    Transcript,
    TurnRequest,
)
from tests.brain.home import CLOCK, answer, begin, events_of, ready, text_of, tone
from tests.virtual_time import run

Script = Sequence[Delta | float | MeshError]
DONE = Finish(FinishReason.COMPLETED, 1)


@dataclass
class Scripted:
    """Answers each round by the next script: deltas, seconds to wait, faults to raise. Records what it was shown."""

    scripts: list[Script] = field(default_factory=list)
    transcript_s: float = 0.0
    shown: list[Conversation] = field(default_factory=list)
    asked: list[BrainSampling] = field(default_factory=list)
    priorities: list[int] = field(default_factory=list)
    fault: MeshError | None = None
    hears: bool = True
    open_count: int = 0

    async def start(self) -> None:
        pass

    def info(self) -> BackendInfo:
        return BackendInfo("scripted", "scripted", "", self.hears, True)

    def open(self, opening: Opening) -> Scripted:
        self.priorities.append(opening.priority)
        self.open_count += 1
        return self

    async def check(self) -> None:
        if self.fault is not None:
            raise self.fault

    def hear(self, samples: object) -> None:
        pass

    async def answer(self, conversation: Conversation, sampling: BrainSampling) -> AsyncGenerator[Delta, None]:
        self.shown.append(conversation)
        self.asked.append(sampling)
        for item in self.scripts.pop(0) if self.scripts else [Piece("fine", (), 0.0), DONE]:
            if isinstance(item, MeshError):
                raise item
            if isinstance(item, float):
                await asyncio.sleep(item)
            else:
                yield item

    async def transcript(self, conversation: Conversation) -> str:
        await asyncio.sleep(self.transcript_s)
        return "what was said"

    def close(self) -> None:  # type: ignore[override]
        self.open_count -= 1


class Backend:
    """`Scripted` under the name that the engine uses; closing a turn and closing the backend differ here."""

    def __init__(self, scripted: Scripted) -> None:
        self.start, self.info, self.open, self.check = scripted.start, scripted.info, scripted.open, scripted.check

    async def close(self) -> None:
        pass


def with_engine(scripted: Scripted, scenario: Callable[[BrainEngine], object], **limits: float) -> None:
    """Run `scenario(engine)` in virtual time."""

    async def main() -> None:
        engine = BrainEngine(Backend(scripted), BrainLimits(**limits), "be brief")  # type: ignore[arg-type]
        await engine.start()
        await scenario(engine)  # type: ignore[misc]
        await engine.close()
        assert scripted.open_count == 0

    run(main())


def call(name: str, call_id: str = "c1", error: str = "") -> Call:
    return Call(ToolCall(call_id, name, {}), error)


def test_a_person_who_says_nothing_for_too_long_is_out_of_time() -> None:
    async def scenario(engine: BrainEngine) -> None:
        turn = engine.submit(TurnRequest())
        for _ in range(5):
            await asyncio.sleep(50)
            turn.feed_audio(tone(0.02))
        end = (await events_of(turn))[-1]
        assert isinstance(end, Ended)
        assert isinstance(end.error, OutOfTime)
        assert asyncio.get_running_loop().time() == pytest.approx(310, abs=1)

    with_engine(Scripted(), scenario)


def test_a_silent_model_is_out_of_time_and_so_is_one_that_stalls() -> None:
    async def scenario(engine: BrainEngine) -> None:
        for script, wanted in (([61.0, DONE], ""), ([Piece("so", (), 0.0), 31.0, DONE], "so")):
            scripted.scripts = [script]
            said, end = await answer(engine, "hello")
            assert said == wanted
            assert isinstance(end.error, OutOfTime)

    scripted = Scripted()
    with_engine(scripted, scenario)


def test_a_callers_deadline_holds_and_is_never_longer_than_ours() -> None:
    async def scenario(engine: BrainEngine) -> None:
        begun = asyncio.get_running_loop().time()
        for deadline, lasted in ((5.0, 5.0), (9999.0, 605.0)):
            scripted.scripts = [[Piece("so", (), 0.0), *[20.0, Piece(" on", (), 0.0)] * 100]]
            _, end = await answer(engine, "hello", TurnRequest(deadline_s=deadline))
            assert isinstance(end.error, OutOfTime)
            assert asyncio.get_running_loop().time() - begun == pytest.approx(lasted, abs=0.1)

    scripted = Scripted()
    with_engine(scripted, scenario)


def test_a_tools_result_that_does_not_come_is_out_of_time() -> None:
    async def scenario(engine: BrainEngine) -> None:
        events = await events_of(begin(engine, "hello", TurnRequest(tools=(CLOCK,))))
        assert [type(event) for event in events[1:]] == [ToolCallRequest, Ended]
        assert isinstance(events[-1], Ended)
        assert isinstance(events[-1].error, OutOfTime)

    with_engine(Scripted([[call("clock"), DONE]]), scenario)


def test_a_call_that_nobody_can_make_is_answered_to_the_model_alone() -> None:
    async def scenario(engine: BrainEngine) -> None:
        events = await events_of(begin(engine, "hello", TurnRequest(tools=(CLOCK,))))
        assert not [event for event in events if isinstance(event, ToolCallRequest)]
        assert text_of(events) == "fine"
        told = [message.text for message in scripted.shown[-1].messages if message.role is Role.TOOL]
        assert told == ["Error: there is no tool 'lamp'", "Error: not JSON"]

    scripted = Scripted([[call("lamp"), call("clock", "c2", "not JSON"), DONE]])
    with_engine(scripted, scenario)


def test_a_model_that_calls_for_ever_runs_away() -> None:
    async def scenario(engine: BrainEngine) -> None:
        _, end = await answer(engine, "hello")
        assert end.reason is FinishReason.RUNAWAY

    with_engine(Scripted([[call("lamp", f"c{i}"), DONE] for i in range(20)]), scenario)


def test_tokens_count_over_all_rounds_of_a_turn() -> None:
    async def scenario(engine: BrainEngine) -> None:
        request = TurnRequest(sampling=BrainSampling(max_tokens=10))
        _, end = await answer(engine, "hello", request)
        assert [asked.max_tokens for asked in scripted.asked] == [10, 6]
        assert end.completion_token_count == 5

    made = Finish(FinishReason.COMPLETED, 4)
    scripted = Scripted([[Usage(3, 1), call("lamp"), made]])
    with_engine(scripted, scenario)


def test_a_reader_who_does_not_read_holds_the_model_up_and_loses_the_turn() -> None:
    async def scenario(engine: BrainEngine) -> None:
        turn = begin(engine, "hello")
        await asyncio.sleep(29)
        assert engine.info().free_slot_count == 7
        await asyncio.sleep(2)
        assert engine.info().free_slot_count == 8
        events = await events_of(turn)
        assert len(events) <= 10
        assert isinstance(events[-1], Ended)
        assert isinstance(events[-1].error, Overloaded)
        assert events[-1].error.reason == "SLOW_READER"

    with_engine(Scripted([[Piece("x", (), 0.0)] * 100 + [DONE]]), scenario, unread_events=8)


def test_what_is_not_read_of_a_cancelled_answer_is_never_told() -> None:
    async def scenario(engine: BrainEngine) -> None:
        turn = begin(engine, "hello")
        await asyncio.sleep(1)
        turn.cancel()
        assert text_of(await events_of(turn)) == ""

    with_engine(Scripted([[Piece("x", (), 0.0)] * 100 + [DONE]]), scenario)


def test_a_cancelled_answer_still_says_how_much_was_made() -> None:
    async def scenario(engine: BrainEngine) -> None:
        turn = begin(engine, "hello")
        await asyncio.sleep(1)
        turn.cancel()
        end = (await events_of(turn))[-1]
        assert isinstance(end, Ended)
        assert (end.completion_token_count, end.prompt_token_count) == (5, 7)
        assert end.compute_s == pytest.approx(1)

    with_engine(Scripted([[Usage(7, 0), Piece("a b", (1, 2), 0.0), Piece("c", (3, 4, 5), 0.0), 9.0]]), scenario)


@pytest.mark.parametrize(
    ("request_", "reason"),
    [
        (TurnRequest(audio_format=AudioFormat(sample_rate_hz=1)), "INVALID"),
        (TurnRequest(audio_format=AudioFormat(channel_count=3)), "INVALID"),
        (TurnRequest(sampling=BrainSampling(temperature=-1)), "INVALID"),
        (TurnRequest(sampling=BrainSampling(temperature=float("nan"))), "INVALID"),
        (TurnRequest(sampling=BrainSampling(top_p=0.0)), "INVALID"),
        (TurnRequest(sampling=BrainSampling(max_tokens=0)), "INVALID"),
        (TurnRequest(sampling=BrainSampling(stop=("",))), "INVALID"),
        (TurnRequest(tools=(CLOCK, CLOCK)), "INVALID"),
        (TurnRequest(instructions="x" * 1_000_001), "TOO_LARGE"),
        (TurnRequest(history=(Message(Role.USER, "x"),) * 1025), "TOO_LARGE"),
        (TurnRequest(history=(Message(Role.USER, audio=bytes(2 * 16000 * 901)),)), "TOO_LARGE"),
    ],
)
def test_a_request_that_means_nothing_is_refused_at_once(request_: TurnRequest, reason: str) -> None:
    async def scenario(engine: BrainEngine) -> None:
        with pytest.raises(InvalidRequest) as refusal:
            engine.submit(request_)
        assert refusal.value.reason == reason
        assert engine.info().free_slot_count == engine.info().slot_count

    with_engine(Scripted(), scenario)


def test_a_turn_holds_only_so_much() -> None:
    async def scenario(engine: BrainEngine) -> None:
        turn = engine.submit(TurnRequest())
        with pytest.raises(InvalidRequest, match="characters"):
            turn.feed_text("x" * 40_000)
        with pytest.raises(InvalidRequest, match="2 s"):
            turn.feed_audio(tone(3))
        with pytest.raises(OutOfOrder):
            turn.tool_result("c1", "nobody asked")
        turn.cancel()

    with_engine(Scripted(), scenario, max_audio_s=2)


def test_audio_for_a_model_that_hears_nothing_is_unsupported() -> None:
    async def scenario(engine: BrainEngine) -> None:
        turn = engine.submit(TurnRequest())
        with pytest.raises(InvalidRequest) as refusal:
            turn.feed_audio(tone(0.1))
        assert refusal.value.reason == "UNSUPPORTED"
        turn.cancel()

    with_engine(Scripted(hears=False), scenario)


def test_speculative_turns_leave_a_slot_and_come_later() -> None:
    async def scenario(engine: BrainEngine) -> None:
        guess = engine.submit(TurnRequest(speculative=True))
        with pytest.raises(Overloaded):
            engine.submit(TurnRequest(speculative=True))
        real = engine.submit(TurnRequest())
        assert scripted.priorities == [1, 0]
        for turn in (guess, real):
            turn.cancel()

    scripted = Scripted()
    with_engine(scripted, scenario, slot_count=2)


def test_a_transcript_that_takes_too_long_is_not_waited_for() -> None:
    async def scenario(engine: BrainEngine) -> None:
        for took, wanted in ((9.0, [Transcript("what was said", True)]), (11.0, [])):
            scripted.transcript_s = took
            events = await events_of(begin(engine, tone(1), TurnRequest(want_transcript=True)))
            assert [event for event in events if isinstance(event, Transcript)] == wanted
            assert isinstance(events[-1], Ended)
            assert events[-1].reason is FinishReason.COMPLETED

    scripted = Scripted()
    with_engine(scripted, scenario)


def test_typed_words_are_their_own_transcript() -> None:
    async def scenario(engine: BrainEngine) -> None:
        events = await events_of(begin(engine, "hello", TurnRequest(want_transcript=True)))
        assert Transcript("hello", True) in events

    with_engine(Scripted(), scenario)


def test_a_dead_backend_is_noticed_between_turns_and_trusted_again() -> None:
    async def scenario(engine: BrainEngine) -> None:
        scripted.fault = NotReady("gone")
        await ready(engine, False)
        with pytest.raises(NotReady):
            engine.submit(TurnRequest())
        scripted.fault = None
        await ready(engine, True)
        assert (await answer(engine, "hello"))[0] == "fine"

    scripted = Scripted()
    with_engine(scripted, scenario)


def test_a_backends_unknown_fault_is_broken_and_says_nothing_of_it() -> None:
    async def scenario(engine: BrainEngine) -> None:
        _, end = await answer(engine, "hello")
        assert isinstance(end.error, Broken)
        assert "secret" not in end.error.message

    class Unruly(Scripted):
        async def answer(self, conversation: Conversation, sampling: BrainSampling) -> AsyncGenerator[Delta, None]:
            raise RuntimeError("secret")
            yield DONE

    with_engine(Unruly(), scenario)


def test_closing_the_engine_ends_every_turn_once() -> None:
    async def main() -> None:
        engine = BrainEngine(Backend(Scripted([[50.0]])))  # type: ignore[arg-type]
        await engine.start()
        turns = [begin(engine, "hello"), engine.submit(TurnRequest())]
        await asyncio.sleep(1)
        await engine.close()
        for turn in turns:
            end = (await events_of(turn))[-1]
            assert isinstance(end, Ended)
            assert end.reason is FinishReason.CANCELLED
        with pytest.raises(NotReady):
            engine.submit(TurnRequest())
        assert [state async for state in engine.readiness()] == []

    run(main())


def test_the_answer_is_built_on_instructions_history_and_the_turn() -> None:
    async def scenario(engine: BrainEngine) -> None:
        await answer(engine, "hello", TurnRequest(history=(Message(Role.USER, "hi"), Message(Role.ASSISTANT, "ho"))))
        assert [message.text for message in scripted.shown[0].messages] == ["be brief", "hi", "ho", "hello"]
        await answer(engine, "", TurnRequest("be kind", history=(Message(Role.USER, "hi"),)))
        assert [message.text for message in scripted.shown[1].messages] == ["be kind", "hi"]

    scripted = Scripted()
    with_engine(scripted, scenario)


def test_pieces_are_told_in_order() -> None:
    async def scenario(engine: BrainEngine) -> None:
        events = await events_of(begin(engine, "hello"))
        assert [event.text for event in events if isinstance(event, TextPiece)] == [str(i) for i in range(100)]

    with_engine(Scripted([[*(Piece(str(i), (), 0.0) for i in range(100)), DONE]]), scenario)
