"""What the offline brain says to what it is told, and how fast."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import time
from fractions import Fraction
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.brain.admission import BrainEngine
from services.brain.backend import Opening, Piece
from services.brain.backends.offline import OfflineBackend
from services.brain.offline.arithmetic import NoResult, NotASum, evaluate
from services.brain.offline.numbers import ordinal, read_number, say_number
from services.brain.offline.story import STORY
from services.brain.offline.talk import HELP, NOT_ENGLISH, NOT_UNDERSTOOD, Talk, reply, rest_after
from services.brain.options import OfflineOptions
from services.brain.prompt import INTERRUPTED, ChatMessage, Conversation
from services.brain.types import BrainSampling, Message, Role, TurnRequest
from tests.brain.home import answer
from tests.virtual_time import run

NOW = datetime.datetime(2026, 11, 22, 15, 7)


def said(text: str, now: datetime.datetime = NOW) -> str:
    return reply(Talk(text, now))


@given(st.integers(0, 10**15 - 1))
def test_numbers_said_are_read_back(value: int) -> None:
    words = say_number(value).split()
    assert read_number(words) == (Fraction(value), len(words))


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("what is twelve plus thirty one?", 43),
        ("12+30=", 42),
        ("seven hundred and five times three", 2115),
        ("(2 + 3) * 4", 20),
        ("2 + 3 * 4", 14),
        ("ten minus two minus three", 5),
        ("two to the power of three squared", 512),
        ("2**3**2", 512),
        ("half of nine", Fraction(9, 2)),
        ("15% of 200", 30),
        ("minus four times minus two", 8),
        ("3 - -2", 5),
        ("three point one four times two", Fraction(157, 25)),
        ("a hundred divided by seven", Fraction(100, 7)),
        ("1,000 minus 1", 999),
        ("2x3", 6),
        ("twenty-one plus 4", 25),
    ],
)
def test_sums_are_computed_exactly(text: str, value: int | Fraction) -> None:
    assert evaluate(text) == value


@pytest.mark.parametrize("text", ["", "hello", "12", "ten minus", "((((", "plus", "1 2 + 3", "x", "(" * 5000 + "+1"])
def test_what_is_no_sum_is_not_taken_for_one(text: str) -> None:
    with pytest.raises(NotASum):
        evaluate(text)


@pytest.mark.parametrize("text", ["1/0", "2^1000", "9^9^9", "0^-1", "a billion times a billion"])
def test_sums_without_a_result_say_so(text: str) -> None:
    with pytest.raises(NoResult):
        evaluate(text)


@given(st.text(alphabet="0123456789+-*/() .", max_size=40))
def test_no_text_of_digits_and_signs_breaks_the_parser(text: str) -> None:
    with contextlib.suppress(NotASum, NoResult):
        assert isinstance(evaluate(text), Fraction)


@given(st.text(max_size=80))
def test_there_is_an_answer_to_everything(text: str) -> None:
    assert said(text)


@pytest.mark.parametrize(
    ("text", "answered"),
    [
        ("Hello!", "Good afternoon! What can I do for you?"),
        ("What time is it?", "It is three oh seven in the afternoon."),
        ("what's the date", "Today is Sunday, the twenty second of November, twenty twenty six."),
        ("1/8", "That is zero point one two five."),
        ("1/0", "I am afraid nothing can be divided by zero."),
        ("Count to five, please.", "one, two, three, four, five."),
        ("count from three to six", "three, four, five, six."),
        ("count backwards from three", "three, two, one."),
        ("count to a million", "That would take too long. I count one thousand numbers at most."),
        ("spell banana", "Banana is spelled B, A, N, A, N, A."),
        ("Repeat after me: The sky is Blue, Tom.", "The sky is Blue, Tom."),
        ("tell me a long story", STORY),
        ("what can you do?", HELP),
        ("what is love", NOT_UNDERSTOOD),
        ("现在几点？", NOT_ENGLISH),
        ("请告诉我 what time it is 谢谢你了朋友们", NOT_ENGLISH),
        ("Hello. What is two plus two?", "Good afternoon! What can I do for you? That is four."),
        ("go on", "There is nothing to go on with."),
    ],
)
def test_it_answers_what_it_knows_and_says_what_it_does_not(text: str, answered: str) -> None:
    assert said(text) == answered


def test_the_time_of_day_is_said_as_people_say_it() -> None:
    times = {(0, 0): "twelve o'clock at night", (12, 30): "twelve thirty in the afternoon", (21, 5): "nine oh five in"}
    for (hour, minute), words in times.items():
        assert words in said("what time is it", NOW.replace(hour=hour, minute=minute))
    assert [ordinal(day) for day in (1, 12, 20, 21, 31)] == [
        "first", "twelfth", "twentieth", "twenty first", "thirty first",
    ]  # fmt: skip


def test_an_interrupted_answer_goes_on_where_it_was_cut() -> None:
    heard = STORY[:200]
    before = (ChatMessage(Role.USER, "a story"), ChatMessage(Role.ASSISTANT, heard + INTERRUPTED))
    assert reply(Talk("go on", NOW, before)) == STORY[200:].lstrip()
    counted = (ChatMessage(Role.USER, "count to five"), ChatMessage(Role.ASSISTANT, "one, two," + INTERRUPTED))
    assert reply(Talk("continue", NOW, counted)) == "three, four, five."


def test_what_was_said_by_another_brain_is_skipped_by_its_words() -> None:
    assert rest_after("one two three four", "eins zwei") == "three four"


def test_a_long_strange_text_is_answered_quickly() -> None:
    begun = time.monotonic()
    for text in ("count from " + "a" * 30_000, "1+" * 10_000, "hello " * 5_000, "(" * 30_000):
        assert said(text) == NOT_UNDERSTOOD
    assert time.monotonic() - begun < 1


def test_words_come_at_the_set_pace_with_the_same_jitter_every_time() -> None:
    first, again = run(_gaps(OfflineOptions(20.0, jitter=0.5))), run(_gaps(OfflineOptions(20.0, jitter=0.5)))
    other = run(_gaps(OfflineOptions(20.0, jitter=0.5, seed=1)))
    assert first == pytest.approx(again)
    assert first != pytest.approx(other)
    assert all(0.0249 < gap < 0.0751 for gap in first)
    assert sum(first) / len(first) == pytest.approx(0.05, rel=0.2)


def test_a_stalling_brain_stalls_when_it_was_told_to() -> None:
    gaps = run(_gaps(OfflineOptions(100.0, jitter=0.0, stall_every_tokens=5, stall_s=2.0, first_token_s=1.5)))
    assert [index for index, gap in enumerate(gaps, 1) if gap > 1] == list(range(5, len(gaps) + 1, 5))


async def _gaps(options: OfflineOptions) -> list[float]:
    """Times between the tokens of an answer; without ears, which live in the world's time."""
    exchange = OfflineBackend(options)
    exchange._up.set()
    turn = exchange.open(Opening(Conversation(())))
    deltas = turn.answer(Conversation((ChatMessage(Role.USER, "count to twenty"),)), BrainSampling())
    now = asyncio.get_running_loop().time
    times = [now() async for delta in deltas if isinstance(delta, Piece)]
    return [later - earlier for earlier, later in pairwise(times)]


async def test_an_answer_begun_elsewhere_goes_on_after_its_words() -> None:
    backend = OfflineBackend(OfflineOptions(tokens_per_s=0))
    engine = BrainEngine(backend)
    await engine.start()
    said, _ = await answer(engine, "count to five", TurnRequest(partial_answer="one, tw"))
    assert said == "o, three, four, five."
    history = (Message(Role.USER, "count to five"), Message(Role.ASSISTANT, "one, two,", interrupted=True))
    said, _ = await answer(engine, "go on", TurnRequest(history=history))
    assert said == "three, four, five."
    await engine.close()
