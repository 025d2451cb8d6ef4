"""Numbers, units, dates and abbreviations as they are said."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.gateway.speakable import Normalisation, SpeakableFilter
from services.gateway.speakable import numbers as spelled
from tests.gateway.speakable.spoken import cut, one_by_one

AUTO = {
    "It costs $5.50, or $1.2 million; 20% off.": (
        "It costs five dollars and fifty cents, or one point two million dollars; twenty percent off."
    ),
    "$1, £2, €1,000.50 and ¥3": "one dollar, two pounds, one thousand euros and fifty cents and three yuan",
    "At 9:30 a.m. on 2024-05-01, 17:05, 3:00 pm, 8:00.": (
        "At nine thirty A M on May first, twenty twenty-four, seventeen oh five, three P M, eight o'clock."
    ),
    "10 km/h, 5m, 1 kg, 10-20 km, -5 °C": (
        "ten kilometers per hour, five meters, one kilogram, ten to twenty kilometers, minus five degrees Celsius"
    ),
    "1st, 22nd and 113th": "first, twenty-second and one hundred thirteenth",
    "Call 555-1234, 3.14, 1,234 or 42 men in the 1990s.": "Call 555-1234, 3.14, 1,234 or 42 men in the 1990s.",
    "3D, mp3, 4x4, H2O, v1.2, 25:70, 2024-15-01 and 99999": "3D, mp3, 4x4, H2O, v1.2, 25:70, 2024-15-01 and 99999",
    "Dr. No etc. - well": "Dr. No etc. - well",
    "**$5** `10 km`": "five dollars ten kilometers",
    "价格是$5，20%的人，-3℃，9:30，2:00，10km，2024-05-01。": (
        "价格是五美元，百分之二十的人，负三摄氏度，九点三十分，两点，十公里，二零二四年五月一日。"
    ),
}
ON = {
    "Call 555-1234 in 1984 or 2005, 1,234,567 people, 3.14.": (
        "Call 555-1234 in nineteen eighty-four or two thousand five, one million two hundred thirty-four thousand "
        "five hundred sixty-seven people, three point one four."
    ),
    "Dr. Smith vs. Mr. X, e.g. this, i.e. that, etc.": (
        "Doctor Smith versus Mister X, for example this, that is that, et cetera"
    ),
    "1/2, 1/4, 3/8, 007, 1.2.3 and 10-20": (
        "one half, one quarter, three over eight, zero zero seven, one point two point three and ten to twenty"
    ),
    "Drive, prefer, even v, each etcher": "Drive, prefer, even v, each etcher",
    "2个苹果，12个人，2024年，12345，10203，3.5": (
        "两个苹果，十二个人，二零二四年，一万二千三百四十五，一万零二百零三，三点五"
    ),
    "5": "five",
}


def said(mode: Normalisation, *deltas: str, language: str = "") -> str:
    speakable = SpeakableFilter(mode, language)
    pieces = [piece for delta in deltas for piece in speakable.feed(delta)]
    return "".join(piece.text for piece in (*pieces, *speakable.flush()))


@pytest.mark.parametrize(("written", "spoken"), AUTO.items())
def test_signs_are_read_when_numbers_are_read_automatically(written: str, spoken: str) -> None:
    assert said("auto", written) == spoken


@pytest.mark.parametrize(("written", "spoken"), ON.items())
def test_every_number_is_read_when_that_is_wanted(written: str, spoken: str) -> None:
    assert said("on", written) == spoken


@pytest.mark.parametrize("written", [*AUTO, *ON])
def test_nothing_is_read_when_it_is_left_to_the_model(written: str) -> None:
    plain = written.replace("*", "").replace("`", "")
    assert said("off", written) == plain


def test_a_number_that_comes_first_is_read_in_the_language_that_was_named() -> None:
    assert said("on", "12", language="Chinese") == "十二"
    assert said("on", "12", language="english") == "twelve"


SIGNS = [
    *"$€¥%°-−./:, \n012589smkhCg年个章a",
    "km/h",
    "am",
    "a.m.",
    " million",
    "Dr.",
    "e.g.",
    "etc",
    "1st",
    "2024-05-01",
    "9:30",
]
TEXTS = st.lists(st.sampled_from([*SIGNS, "**", "the ", "好", "12345678", "0" * 20]), max_size=25).map("".join)
CUTS = st.lists(st.integers(0, 1000), max_size=10)


@settings(max_examples=500, deadline=None)
@given(st.sampled_from(["auto", "on"]), TEXTS, CUTS)
def test_any_cut_is_read_alike_for_the_same_characters(mode: Normalisation, text: str, places: list[int]) -> None:
    def read(deltas: list[str]) -> list[tuple[str, int, int]]:
        speakable = SpeakableFilter(mode)
        pieces = [piece for delta in deltas for piece in speakable.feed(delta)]
        return one_by_one([*pieces, *speakable.flush()])

    whole = read([text])
    assert read(cut(text, places)) == whole
    assert read(list(text)) == whole


@settings(max_examples=300, deadline=None)
@given(TEXTS)
def test_what_was_read_stands_for_what_was_written(text: str) -> None:
    speakable, end = SpeakableFilter("on"), 0
    for piece in (*speakable.feed(text), *speakable.flush()):
        assert end <= piece.original_start < piece.original_end <= len(text)
        end = piece.original_end


WORDS = st.from_regex(r"[b-df-hj-lo-uw-zB-CE-LN-OQ-Z][a-z]{2,8}|[一-龥]{1,4}", fullmatch=True)


@settings(max_examples=200, deadline=None)
@given(st.lists(WORDS, min_size=1, max_size=15))
def test_words_are_not_held_back(words: list[str]) -> None:
    speakable = SpeakableFilter("auto")
    for word in words:
        assert "".join(piece.text for piece in speakable.feed(f" {word},")) == f" {word},"


@given(st.integers(0, 10**15 - 1))
def test_cardinals_say_the_number(number: int) -> None:
    assert _value(spelled.cardinal(str(number))) == number
    assert _han_value(spelled.han_cardinal(str(number))) == number


def _value(words: str) -> int:
    """Back from English words."""
    scales = {"thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12}
    small = {spelled.cardinal(str(value)): value for value in range(100)}
    total, group = 0, 0
    for word in words.split():
        if word in scales:
            total, group = total + group * scales[word], 0
        else:
            group = group * 100 if word == "hundred" else group + small[word]
    return total + group


def _han_value(words: str) -> int:
    """Back from Chinese ones."""
    total, section, digit = 0, 0, 0
    for i, word in enumerate(words):
        if word in "零一二三四五六七八九":
            digit = "零一二三四五六七八九".index(word)
        elif word in "十百千":
            section += (digit or (1 if i == 0 else 0)) * {"十": 10, "百": 100, "千": 1000}[word]
            digit = 0
        else:
            section, digit = section + digit, 0
            if word == "万" and words[i + 1 : i + 2] == "亿":
                total, section = total + section * 10**12, 0
            elif word == "亿" and words[i - 1 : i] == "万":
                continue
            else:
                total, section = total + section * {"万": 10**4, "亿": 10**8}[word], 0
    return total + section + digit
