"""Ids to words: whole characters, stop strings and tool calls, however the stream is cut."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.brain.backend import Call
from services.brain.tokens import TOOL_CLOSE, TOOL_OPEN, AnswerParser, Chunk, Watch, read_call, with_arguments

CALL = TOOL_OPEN + json.dumps({"name": "clock", "arguments": {"zone": "UTC"}}) + TOOL_CLOSE


def spoken(text: str, stop: tuple[str, ...] = (), calls: bool = True) -> tuple[list[Chunk], list[Call], AnswerParser]:
    """Parse `text`, one id a character."""
    parser = AnswerParser(chr, frozenset(), stop, calls)
    out: list[Chunk | Call] = []
    for char in text:
        out += parser.push([ord(char)])
    out += parser.finish()
    return (
        [part for part in out if not isinstance(part, Call)],
        [part for part in out if isinstance(part, Call)],
        parser,
    )


def text_of(chunks: list[Chunk]) -> str:
    return "".join(text for text, _ in chunks)


words = st.text(alphabet="ab<>/tol_c", max_size=30)


@given(words)
def test_text_without_calls_comes_through_whole_with_its_ids(text: str) -> None:
    chunks, calls, _ = spoken(text)
    if TOOL_OPEN not in text:
        assert text_of(chunks) == text
        assert [index for _, ids in chunks for index in ids] == [ord(char) for char in text]
        assert not calls


@given(words, words, st.text(alphabet="ab<>", min_size=1, max_size=4))
def test_the_answer_ends_before_the_first_stop_string(before: str, after: str, stop: str) -> None:
    text = before + stop + after
    chunks, _, parser = spoken(text, (stop,), calls=False)
    assert text_of(chunks) == text[: text.index(stop)]
    assert parser.stopped


@given(st.lists(st.text(alphabet="xyz ", min_size=1, max_size=5), max_size=8), st.text(alphabet="xyz", min_size=1))
def test_where_chunks_are_cut_changes_nothing_but_the_cuts(parts: list[str], mark: str) -> None:
    whole, cut = Watch((mark,)), Watch((mark,))
    one = whole.push(("".join(parts), ())) if parts else ([], None)
    said, found = "", None
    for part in parts:
        free, found = cut.push((part, ()))
        said += text_of(free)
        if found:
            break
    else:
        said += text_of(cut.rest())
    assert found == one[1]
    assert said == text_of(one[0]) + ("" if one[1] else text_of(whole.rest()))


def test_nothing_is_held_back_longer_than_it_could_be_a_mark() -> None:
    watch = Watch(("stop",))
    assert watch.push(("st", (1,))) == ([], None)
    assert watch.push(("art", (2,))) == ([("st", (1,)), ("art", (2,))], None)


def test_a_call_is_read_and_not_said() -> None:
    chunks, calls, _ = spoken(f"Wait. {CALL}\n{CALL}\n")
    assert text_of(chunks) == "Wait. "
    assert [(call.call.name, call.call.arguments, call.error) for call in calls] == [("clock", {"zone": "UTC"}, "")] * 2
    assert calls[0].call.id != calls[1].call.id


def test_a_call_that_is_not_closed_is_read_at_the_end() -> None:
    chunks, calls, _ = spoken(CALL.removesuffix(TOOL_CLOSE))
    assert not chunks
    assert calls[0].call.name == "clock"


def test_without_tools_a_call_is_only_text() -> None:
    chunks, calls, _ = spoken(CALL, calls=False)
    assert text_of(chunks) == CALL
    assert not calls


def test_control_tokens_are_not_said() -> None:
    parser = AnswerParser(lambda token: "x", frozenset({7}), (), True)
    assert parser.push([1, 7, 2]) == [("x", (1,)), ("x", (2,))]


def test_half_a_character_waits_for_the_other_half_and_keeps_its_ids() -> None:
    steps = {1: None, 2: None, 3: "你"}
    parser = AnswerParser(lambda token: steps[token], frozenset(), (), False)
    assert [parser.push([token]) for token in (1, 2, 3)] == [[], [], [("你", (1, 2, 3))]]
    assert parser.push([1]) + parser.finish() == []


@pytest.mark.parametrize(
    ("text", "error"),
    [("{", "not JSON"), ("[]", "no name"), ('{"name": 3}', "no name"), ('{"name": "a", "arguments": [1]}', "object")],
)
def test_a_call_that_cannot_be_read_says_why(text: str, error: str) -> None:
    assert error in read_call("c1", text).error


def test_arguments_may_be_an_object_or_the_text_of_one() -> None:
    assert with_arguments("c1", "a", '{"b": 1}').call.arguments == {"b": 1}
    assert with_arguments("c1", "a", "").call.arguments == {}
    assert "not JSON" in with_arguments("c1", "a", "{b").error
