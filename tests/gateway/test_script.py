"""What the talker is told of a text that comes in pieces, and where it may be cut."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.errors import InvalidRequest
from services.gateway.allowance import Allowance
from services.gateway.script import Script, whole_words


@pytest.mark.parametrize(
    ("text", "whole"),
    [
        ("", ""),
        ("Hel", ""),
        ("Hello ", "Hello "),
        ("Hello, wor", "Hello, "),
        ("It's don'", "It's "),
        ("well-kno", ""),
        ("End.", "End."),
        ("你好世", "你好世"),
        ("你好 wor", "你好 "),
        ("สวัสดี", "สวัสดี"),
        ("anno 202", "anno "),
    ],
)
def test_a_text_is_cut_between_words_only(text: str, whole: str) -> None:
    assert text[: whole_words(text)] == whole


@given(st.lists(st.sampled_from(["feed", "close", "advance"])), st.booleans(), st.data())
def test_every_character_is_told_once_and_in_order(steps: list[str], by_words: bool, data: st.DataObject) -> None:
    script = Script(by_words, 10_000)
    fed = told = over = ""
    live = ""  # what the talker was told of the segment it speaks
    for step in steps:
        if step == "feed":
            piece = data.draw(st.text("ab .你", max_size=5))
            fed += piece
            live += script.feed(piece)
        elif step == "close":
            script.close()
        elif script.spoken.is_closed:
            over += script.spoken.text
            live = script.advance().text
        assert live == script.spoken.text
    live += script.flush()
    told = over + "".join(segment.text for segment in script.segments)
    assert (told, live) == (fed, script.spoken.text)
    assert script.segments[-1].is_closed
    assert script.spoken.first_character == len(over)


def test_a_text_longer_than_the_limit_is_refused_whatever_is_held_back() -> None:
    script = Script(True, 10)
    script.feed("abcdefgh")
    with pytest.raises(InvalidRequest, match="at most 10"):
        script.feed("ijk")


@given(
    st.integers(1, 64),
    st.integers(0, 32),
    st.lists(st.tuples(st.sampled_from(["credit", "made", "taken"]), st.integers(1, 16))),
)
def test_no_more_is_granted_than_the_caller_allows_and_a_lead_beyond_what_it_took(
    lead: int, asked: int, steps: list[tuple[str, int]]
) -> None:
    allowance = Allowance(lead, asked)
    granted, made, taken, caller = allowance.granted, 0, 0, asked or None
    for what, count in steps:
        if what == "credit":
            caller = count + (made if caller is None else caller)
            granted += allowance.credit(count)
        elif what == "made":
            count = min(count, granted - made)
            made += count
            allowance.made(count)
        else:
            count = min(count, made - taken)
            taken += count
            granted += allowance.taken(count)
        assert granted == allowance.granted
        assert granted <= max(taken + lead, made)
        assert caller is None or asked == 0 or granted <= caller
        assert allowance.left == granted - made


def test_a_caller_who_takes_everything_is_never_starved_of_credit() -> None:
    allowance = Allowance(8, 0)
    for _ in range(100):
        assert allowance.left > 0
        count = allowance.left
        allowance.made(count)
        allowance.taken(count)
