"""English number words, both ways: read exactly, say so that a voice can speak it. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from fractions import Fraction

ONES = (
    *("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"),
    *("thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen"),
)
TENS = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
SCALES = {"thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12}
_VALUES = {word: value for value, word in enumerate(ONES)} | {word: 10 * i for i, word in enumerate(TENS, 2)}
_DIGITS = re.compile(r"\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d+(?:\.\d+)?|\.\d+")
LARGEST = 10**15
"""Nothing as large as this is said."""


def read_number(words: Sequence[str], at: int = 0) -> tuple[Fraction, int] | None:
    """The number that begins at `words[at]`, and where it ends: digits or words, "a hundred", "two point five"."""
    if at < len(words) and _DIGITS.fullmatch(words[at]):
        return Fraction(words[at].replace(",", "")), at + 1
    if at + 1 < len(words) and words[at] in ("a", "an") and (words[at + 1] == "hundred" or words[at + 1] in SCALES):
        return _read_words(["one", *words[at + 1 :]], 0, at)
    return _read_words(words, at, 0) if at < len(words) and words[at] in _VALUES else None


def _read_words(words: Sequence[str], at: int, shift: int) -> tuple[Fraction, int]:
    total, group, last = 0, 0, 0
    ceiling = LARGEST
    while at < len(words):
        word = words[at]
        if word in _VALUES and _fits(_VALUES[word], last):
            last = _VALUES[word]
            group += last
        elif word == "hundred" and 0 < group < 10:
            group, last = group * 100, 100
        elif word in SCALES and group and SCALES[word] < ceiling:
            ceiling = SCALES[word]
            total, group, last = total + group * ceiling, 0, ceiling
        elif not (word == "and" and last >= 100 and at + 1 < len(words) and words[at + 1] in _VALUES):
            break
        at += 1
    value, at = _read_point(words, at, Fraction(total + group))
    return value, at + shift


def _fits(value: int, last: int) -> bool:
    """Whether a word of this value may follow: anything first and after hundreds, ones after tens."""
    return last == 0 or last >= 100 or (20 <= last < 100 and last % 10 == 0 and 0 < value < 10)


def _read_point(words: Sequence[str], at: int, value: Fraction) -> tuple[Fraction, int]:
    if at + 1 >= len(words) or words[at] != "point" or _VALUES.get(words[at + 1], 10) > 9:
        return value, at
    at += 1
    scale = Fraction(1, 10)
    while at < len(words) and _VALUES.get(words[at], 10) < 10:
        value += _VALUES[words[at]] * scale
        scale /= 10
        at += 1
    return value, at


def say_number(value: Fraction | int) -> str:
    """In words; fractions as decimals of up to four places, said to be "about" when they go on."""
    value = Fraction(value)
    if value < 0:
        return "minus " + say_number(-value)
    if value >= LARGEST:
        return "a number too large to say"
    if value.denominator == 1:
        return _say_whole(int(value))
    rounded = Fraction(round(value * 10_000), 10_000)
    whole, places = divmod(int(rounded * 10_000), 10_000)
    digits = f"{places:04d}".rstrip("0")
    said = _say_whole(whole) + "".join([" point", *(f" {ONES[int(digit)]}" for digit in digits)] if digits else [])
    return said if rounded == value else f"about {said}"


def _say_whole(value: int) -> str:
    for name, scale in reversed(SCALES.items()):
        if value >= scale:
            head, rest = divmod(value, scale)
            joint = " and " if 0 < rest < 100 else " "
            return f"{_say_whole(head)} {name}" + (joint + _say_whole(rest) if rest else "")
    if value >= 100:
        head, rest = divmod(value, 100)
        return f"{ONES[head]} hundred" + (f" and {_say_whole(rest)}" if rest else "")
    if value < 20:
        return ONES[value]
    return TENS[value // 10 - 2] + (f" {ONES[value % 10]}" if value % 10 else "")


def ordinal(value: int) -> str:
    """First to thirty-first, for dates."""
    irregular = {1: "first", 2: "second", 3: "third", 5: "fifth", 8: "eighth", 9: "ninth", 12: "twelfth"}
    if value in irregular:
        return irregular[value]
    if value < 20:
        return ONES[value] + "th"
    tens, ones = divmod(value, 10)
    return f"{TENS[tens - 2]} {ordinal(ones)}" if ones else TENS[tens - 2][:-1] + "ieth"
