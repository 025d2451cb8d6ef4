"""Where a long text is cut into utterances, and that its pieces do not matter."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

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
    words = st.sampled_from(["A", "b", "word", "Dr", "1", ".", "?!", ",", " ", "  ", "\n", '"', "。", "”", "x" * 90])
    text = "".join(data.draw(st.lists(words, max_size=60)))
    pieces, rest = [], text
    while rest:
        size = data.draw(st.integers(1, len(rest)))
        pieces.append(rest[:size])
        rest = rest[size:]
    assert segments(text, steady_characters, pieces) == utterances(text, steady_characters)


def test_the_limit_counts_from_where_the_caller_closed() -> None:
    script = Script(False, 10, 1)
    script.feed("One. Two. ")
    script.close()
    script.feed("Three. Up.")
    with pytest.raises(Exception, match="at most 10"):
        script.feed("x")
