"""What every backend has to do, whatever it is: one class of tests, run over each by `test_*_backend.py`."""

from __future__ import annotations

import asyncio
from itertools import pairwise

import pytest

from common.errors import Broken, MeshError, NotReady, OutOfOrder, Overloaded
from common.stream import FinishReason
from services.brain.types import (
    BrainSampling,
    Ended,
    Message,
    Role,
    Started,
    TextPiece,
    ToolCallRequest,
    TurnRequest,
)
from tests.brain.home import CLOCK, Home, answer, begin, events_of, ready, text_of, tone, until

SHORT = BrainSampling(temperature=0, max_tokens=8)


class Conformance:
    """Subclasses are collected by pytest; this one is not."""

    async def test_an_answer_starts_once_flows_in_order_and_ends_once(self, home: Home) -> None:
        events = await events_of(begin(home.engine, home.ask, TurnRequest(sampling=BrainSampling(temperature=0))))
        pieces = [event for event in events if isinstance(event, TextPiece)]
        assert isinstance(events[0], Started)
        assert [type(event) for event in events].count(Started) == 1
        assert [type(event) for event in events].count(Ended) == 1
        assert len(pieces) >= 20
        assert all(a.produced_time_s <= b.produced_time_s for a, b in pairwise(pieces))
        end = events[-1]
        assert isinstance(end, Ended)
        assert end.reason is FinishReason.COMPLETED
        assert end.error is None
        assert end.prompt_token_count > 0
        assert end.completion_token_count >= 20
        assert end.time_to_first_s is not None
        assert end.time_to_first_s >= 0

    async def test_the_same_turn_is_answered_the_same_when_greedy(self, home: Home) -> None:
        request = TurnRequest(sampling=BrainSampling(temperature=0, max_tokens=24))
        first, _ = await answer(home.engine, home.ask, request)
        second, _ = await answer(home.engine, home.ask, request)
        assert first == second != ""

    @pytest.mark.parametrize("piece_count", [0, 1, 2, 5, 13])
    async def test_a_cancel_at_any_token_ends_at_once_and_frees_the_slot(self, home: Home, piece_count: int) -> None:
        turn = begin(home.engine, home.ask)
        seen, cancelled = 0, False
        async for event in turn:
            seen += isinstance(event, TextPiece)
            assert not (cancelled and isinstance(event, TextPiece)), "a piece came after the cancel"
            if seen == piece_count and not cancelled:
                turn.cancel()
                cancelled = True
        assert isinstance(event, Ended)
        assert event.reason is FinishReason.CANCELLED
        info = home.engine.info()
        await until(lambda: home.engine.info().free_slot_count == info.slot_count)

    async def test_a_cancel_before_the_words_are_complete_ends_the_turn(self, home: Home) -> None:
        turn = home.engine.submit(TurnRequest())
        turn.feed_text("nev")
        turn.cancel()
        turn.cancel()
        assert [type(event) for event in await events_of(turn)] in ([Started, Ended], [Ended])
        turn.finish()

    async def test_an_empty_turn_is_complete_and_silent(self, home: Home) -> None:
        said, end = await answer(home.engine)
        assert said == ""
        assert end.reason is FinishReason.COMPLETED

    async def test_text_may_come_in_pieces_and_not_after_finish(self, home: Home) -> None:
        turn = home.engine.submit(TurnRequest(sampling=SHORT))
        for part in home.ask:
            turn.feed_text(part)
        turn.finish()
        turn.finish()
        with pytest.raises(OutOfOrder):
            turn.feed_text("more")
        assert text_of(await events_of(turn)) == (await answer(home.engine, home.ask, TurnRequest(sampling=SHORT)))[0]

    async def test_max_tokens_ends_with_length(self, home: Home) -> None:
        said, end = await answer(home.engine, home.ask, TurnRequest(sampling=BrainSampling(max_tokens=3)))
        assert said
        assert end.reason is FinishReason.LENGTH
        assert end.completion_token_count == 3

    async def test_the_answer_ends_before_a_stop_string(self, home: Home) -> None:
        whole, _ = await answer(home.engine, home.ask, TurnRequest(sampling=BrainSampling(temperature=0)))
        stop = whole[len(whole) // 2 :][:6]
        sampling = BrainSampling(temperature=0, stop=(stop,))
        said, end = await answer(home.engine, home.ask, TurnRequest(sampling=sampling))
        assert said == whole[: whole.index(stop)]
        assert end.reason is FinishReason.COMPLETED

    async def test_a_minute_of_audio_is_heard_as_it_comes(self, home: Home) -> None:
        if not home.engine.info().hears_audio:
            pytest.skip("this model hears nothing")
        turn = home.engine.submit(TurnRequest(sampling=SHORT))
        minute = tone(60)
        for at in range(0, len(minute), 6400):
            turn.feed_audio(minute[at : at + 6400])
        turn.finish()
        end = (await events_of(turn))[-1]
        assert isinstance(end, Ended)
        assert end.error is None
        assert end.reason in (FinishReason.COMPLETED, FinishReason.LENGTH)

    async def test_two_hundred_turns_of_history_are_no_trouble(self, home: Home) -> None:
        pair = (Message(Role.USER, "hello there"), Message(Role.ASSISTANT, "hello"))
        cut = (Message(Role.USER, "a story"), Message(Role.ASSISTANT, "once upon", interrupted=True))
        request = TurnRequest(history=pair * 100 + cut + pair * 99, sampling=SHORT)
        said, end = await answer(home.engine, home.ask, request)
        assert said
        assert end.error is None

    async def test_a_tool_is_called_and_the_answer_goes_on(self, home: Home) -> None:
        turn = begin(home.engine, home.call, TurnRequest(tools=(CLOCK,), sampling=BrainSampling(temperature=0)))
        said_after, called = "", []
        async for event in turn:
            if isinstance(event, ToolCallRequest):
                called.append(event.call)
                turn.tool_result(event.call.id, "noon")
                with pytest.raises(OutOfOrder):
                    turn.tool_result(event.call.id, "noon again")
            elif isinstance(event, TextPiece) and called:
                said_after += event.text
        assert [(call.name, dict(call.arguments)) for call in called] == [("clock", {"zone": "UTC"})]
        assert said_after
        assert isinstance(event, Ended)
        assert event.reason is FinishReason.COMPLETED

    async def test_a_partial_answer_goes_on_without_repeating_it(self, home: Home) -> None:
        whole, _ = await answer(home.engine, home.ask, TurnRequest(sampling=BrainSampling(temperature=0)))
        cut = whole.index(" ", len(whole) // 2)
        request = TurnRequest(partial_answer=whole[:cut], sampling=BrainSampling(temperature=0))
        rest, end = await answer(home.engine, home.ask, request)
        assert rest == whole[cut:]
        assert end.reason is FinishReason.COMPLETED

    async def test_a_full_house_refuses_and_has_room_again(self, home: Home) -> None:
        slots = home.engine.info().slot_count
        turns = [home.engine.submit(TurnRequest()) for _ in range(slots)]
        with pytest.raises(Overloaded):
            home.engine.submit(TurnRequest())
        for turn in turns:
            turn.cancel()
        await until(lambda: home.engine.info().free_slot_count == slots)
        assert (await answer(home.engine, home.ask, TurnRequest(sampling=SHORT)))[0]

    async def test_several_turns_at_once_all_get_their_own_answer(self, home: Home) -> None:
        request = TurnRequest(sampling=SHORT)
        alone, _ = await answer(home.engine, home.ask, request)
        together = await asyncio.gather(*(answer(home.engine, home.ask, request) for _ in range(3)))
        assert [said for said, _ in together] == [alone] * 3

    async def test_a_backend_killed_in_mid_answer_is_down_until_it_is_back(self, home: Home) -> None:
        turn = begin(home.engine, home.ask)
        killed = False
        async for event in turn:
            if isinstance(event, TextPiece) and not killed:
                killed = True
                await home.kill()
        assert killed
        assert isinstance(event, Ended)
        assert event.reason is FinishReason.FAILED
        assert isinstance(event.error, NotReady | Broken)
        await ready(home.engine, False)
        with pytest.raises(NotReady):
            home.engine.submit(TurnRequest())
        await home.revive()
        await ready(home.engine, True)
        said, end = await answer(home.engine, home.ask, TurnRequest(sampling=SHORT))
        assert said
        assert not isinstance(end.error, MeshError)
