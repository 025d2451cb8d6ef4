"""Where a long text is cut into utterances, and that its pieces do not matter."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.errors import InvalidRequest
from services.gateway.script import Script
from services.gateway.sentences import CLAUSES_FROM, WORDS_FROM, utterances


def segments(text: str, steady_characters: int, pieces: list[str] | None = None) -> list[str]:
    script = Script(False, 100_000, steady_characters)
    for piece in pieces or [text]:
        script.feed(piece)
    script.flush()
    return [segment.text for segment in script.segments]


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("One. Two? Three!", ["One. ", "Two? ", "Three!"]),
        ("One.\n\n  Two", ["One.\n\n  ", "Two"]),
        ('He said "Stop!" Then he left.', ['He said "Stop!" ', "Then he left."]),
        ('He said "Stop!" and left. (Really.) Yes', ['He said "Stop!" and left. ', "(Really.) ", "Yes"]),
        ("Dr. Smith met J. Brown vs. Mrs. Hill at St. Ives. They ran.", [None, "They ran."]),
        ("It is 3.5 km, i.e. far. Go", ["It is 3.5 km, i.e. far. ", "Go"]),
        ("1. Apples. 2. Pears.", ["1. Apples. ", "2. Pears."]),
        ("?! ... Well", ["?! ... Well"]),
        ("1. 2. 3. Go. On", ["1. 2. 3. Go. ", "On"]),
        ("Wait... what? Oh", ["Wait... what? ", "Oh"]),
        ("你好。再见！“好。”走", ["你好。", "再见！", "“好。”", "走"]),
        ("One. ", ["One. "]),
        ("", [""]),
    ],
)
def test_a_sentence_is_an_utterance(text: str, parts: list[str | None]) -> None:
    found = utterances(text, 1)
    assert "".join(found) == text
    assert len(found) == len(parts)
    assert all(part in (None, each) for part, each in zip(parts, found, strict=True))


def test_sentences_stay_together_up_to_the_steady_characters() -> None:
    assert segments("One two. Three four. Five six. Seven.", 15) == ["One two. Three four. ", "Five six. Seven."]
    assert segments("One. Two. Three.", 0) == ["One. Two. Three."]


def test_what_has_no_sentences_is_cut_behind_a_clause_or_between_words() -> None:
    clauses = segments("a few words, " * 100, 1)
    assert all(each.endswith(", ") for each in clauses)
    assert all(CLAUSES_FROM <= len(each) < CLAUSES_FROM + 13 for each in clauses[:-1])
    words = segments("word " * 500, 1)
    assert all(WORDS_FROM <= len(each) <= WORDS_FROM + 5 for each in words[:-1])
    assert len(segments("x" * 5000, 1)) == 1


@given(st.data(), st.sampled_from([1, 5, 30]))
def test_pieces_do_not_matter(data: st.DataObject, steady_characters: int) -> None:
    bits = [
        "A",
        "b",
        "word",
        "Dr",
        "1",
        ".",
        "?!",
        ",",
        " ",
        "  ",
        "\n",
        '"',
        "。",
        "”",
        "x" * 90,
        " " * 130,
        "1. " * 50,
    ]
    words = st.sampled_from(bits)
    text = "".join(data.draw(st.lists(words, max_size=60)))
    pieces, rest = [], text
    while rest:
        size = data.draw(st.integers(1, len(rest)))
        pieces.append(rest[:size])
        rest = rest[size:]
    assert segments(text, steady_characters, pieces) == utterances(text, steady_characters)


@pytest.mark.timeout(20)
@pytest.mark.parametrize("piece", ["1. ", "1。", "Dr. ", "Yes. ", "x", " ", ".", ", ", "a,"])
@pytest.mark.parametrize("by_words", [False, True])
def test_no_text_takes_long(piece: str, by_words: bool) -> None:
    text = piece * (65_536 // len(piece))
    at_once, by_letters = (Script(by_words, 65_536, 1) for _ in range(2))
    at_once.feed(text)
    for letter in text[:16_384]:
        by_letters.feed(letter)
    assert "".join(segment.text for segment in at_once.segments) + at_once._held == text


def test_nothing_that_was_told_is_left_out_behind_a_blank_part() -> None:
    script = Script(False, 1000, 1)
    script.feed("Hello.")
    script.close()
    script.feed(" " * 400 + "World.")
    script.flush()
    assert script.has_more
    assert script.advance().text.strip() == "World."
    assert not script.has_more


def test_parts_that_nobody_has_heard_yet_are_bounded() -> None:
    script = Script(False, 100)
    for _ in range(5):
        script.feed("x" * 90)
        script.close()
    with pytest.raises(InvalidRequest, match="at most 100"):
        script.feed("x")
    script.advance()
    script.feed("x")


def test_the_limit_counts_from_where_the_caller_closed() -> None:
    script = Script(False, 10, 1)
    script.feed("One. Two. ")
    script.close()
    script.feed("Three. Up.")
    with pytest.raises(InvalidRequest, match="at most 10"):
        script.feed("x")
