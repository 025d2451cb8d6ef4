"""Numbers as words, English and Chinese. Pure; takes digits as text, so that none is too large and no zero lost."""

from __future__ import annotations

_ONES_NAMES = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen"
)
_ONES = _ONES_NAMES.split()
_TENS = ["", "", "twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]
_SCALES = ["", " thousand", " million", " billion", " trillion"]
_ORDINALS = {"one": "first", "two": "second", "three": "third", "five": "fifth", "eight": "eighth"}
_ORDINALS |= {"nine": "ninth", "twelve": "twelfth"}
MAX_CARDINAL_DIGITS = 15
"""Longer ones are read digit by digit."""
_HAN = "零一二三四五六七八九"
_HAN_PLACES = ["", "十", "百", "千"]
_HAN_SCALES = ["", "万", "亿", "万亿"]


def digits(text: str) -> str:
    """Each by itself: `007` → zero zero seven."""
    return " ".join(_ONES[int(digit)] for digit in text)


def cardinal(text: str) -> str:
    """`1234` → one thousand two hundred thirty-four; by digits what is too long or begins with a zero."""
    if len(text) > MAX_CARDINAL_DIGITS or (len(text) > 1 and text[0] == "0"):
        return digits(text)
    groups, value = [], int(text)
    for scale in _SCALES:
        value, group = divmod(value, 1000)
        if group:
            groups.append(_below_thousand(group) + scale)
    return " ".join(reversed(groups)) or _ONES[0]


def decimal(whole: str, fraction: str) -> str:
    """`3.14` → three point one four."""
    return f"{cardinal(whole)} point {digits(fraction)}" if fraction else cardinal(whole)


def ordinal(text: str) -> str:
    """`21` → twenty-first."""
    words = cardinal(text)
    cut = max(words.rfind(" "), words.rfind("-")) + 1
    last = words[cut:]
    if last in _ORDINALS:
        return words[:cut] + _ORDINALS[last]
    return words[:cut] + (last[:-1] + "ieth" if last.endswith("y") else last + "th")


def year(text: str) -> str:
    """Four digits: `1984` → nineteen eighty-four, `2005` → two thousand five, `1900` → nineteen hundred."""
    century, rest = int(text[:2]), int(text[2:])
    if century % 10 == 0 and rest < 10:
        return cardinal(text)
    if rest == 0:
        return f"{_below_thousand(century)} hundred"
    return f"{_below_thousand(century)} {'oh ' if rest < 10 else ''}{_below_thousand(rest)}"


def han_digits(text: str) -> str:
    """`2024` → 二零二四."""
    return "".join(_HAN[int(digit)] for digit in text)


def han_cardinal(text: str) -> str:
    """`10203` → 一万零二百零三; by digits what is too long or begins with a zero."""
    if len(text) > MAX_CARDINAL_DIGITS or (len(text) > 1 and text[0] == "0"):
        return han_digits(text)
    value, words, is_gap = int(text), "", False
    if value == 0:
        return _HAN[0]
    for place in range((len(text) - 1) // 4, -1, -1):
        group = value // 10 ** (4 * place) % 10000
        if group:
            words += ("零" if words and (group < 1000 or is_gap) else "") + _han_group(group) + _HAN_SCALES[place]
        is_gap = not group
    return words[1:] if words.startswith("一十") else words


def han_decimal(whole: str, fraction: str) -> str:
    """`3.14` → 三点一四."""
    return f"{han_cardinal(whole)}点{han_digits(fraction)}" if fraction else han_cardinal(whole)


def _below_thousand(value: int) -> str:
    hundreds, rest = divmod(value, 100)
    words = [f"{_ONES[hundreds]} hundred"] if hundreds else []
    if rest:
        tens, ones = divmod(rest, 10)
        words.append(_ONES[rest] if rest < 20 else _TENS[tens] + (f"-{_ONES[ones]}" if ones else ""))
    return " ".join(words) or _ONES[0]


def _han_group(value: int) -> str:
    words, is_gap = "", False
    for place in range(3, -1, -1):
        digit = value // 10**place % 10
        if digit:
            words += ("零" if words and is_gap else "") + _HAN[digit] + _HAN_PLACES[place]
        is_gap = not digit
    return words
