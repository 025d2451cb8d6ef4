"""Sums as people type or say them, computed exactly: a tokeniser, a recursive descent parser, fractions. Pure.

sum     = product { ("plus" | "minus") product }
product = power { ("times" | "divided by") power }
power   = factor [ "to the power of" power | "squared" | "cubed" ]
factor  = "minus" factor | "(" sum ")" | "half of" factor | number [ "percent of" factor ]
"""

from __future__ import annotations

import re
from fractions import Fraction

from services.brain.offline.numbers import LARGEST, read_number

_SPELLINGS = (
    (r"\*\*|\^|\bto the power of\b|\braised to\b", " ^ "),
    (r"\bmultiplied by\b|\btimes\b|[*×·]|\bx\b|(?<=\d)x(?=\d)", " * "),
    (r"\bdivided by\b|\bover\b|[/÷]", " / "),
    (r"\bplus\b|\badded to\b|\+", " + "),
    (r"\bminus\b|\bless\b|\bnegative\b|[-−–]", " - "),
    (r"\bpercent of\b|\bper cent of\b|% of\b", " %of "),
    (r"\bsquared\b|²", " ^ 2 "),
    (r"\bcubed\b|³", " ^ 3 "),
    (r"\bhalf of\b|\bhalf\b", " half "),
    (r"\bopen (?:bracket|parenthesis)\b|\(", " ( "),
    (r"\bclose (?:bracket|parenthesis)\b|\)", " ) "),
)
_OPERATORS = frozenset("+-*/^") | {"%of", "half"}
_LEAD = re.compile(
    r"^(?:and |so |please |now |ok |okay )*(?:can you |could you )?(?:tell me )?"
    r"(?:what is|what's|whats|what are|how much is|how much are|calculate|compute|work out)\s+"
)
MAX_EXPONENT = 64
MAX_WORDS = 100


class NotASum(ValueError):
    """The words are something else."""


class NoResult(ValueError):
    """A sum without a value that can be said; the message says why."""


def evaluate(text: str) -> Fraction:
    """The value. Raises `NotASum` for other text (a bare number too), `NoResult` where nothing can be said."""
    words = _words(text)
    if len(words) > MAX_WORDS or _OPERATORS.isdisjoint(words):
        raise NotASum(text)
    value, at = _sum(words, 0)
    if at != len(words):
        raise NotASum(text)
    if abs(value) >= LARGEST:
        raise NoResult("that is more than I can say")
    return value


def _words(text: str) -> list[str]:
    text = _LEAD.sub("", text.lower().strip().rstrip("?!.= "))
    text = re.sub(r"(?<=[a-z])-(?=[a-z])", " ", text)  # twenty-one
    for pattern, written in _SPELLINGS:
        text = re.sub(pattern, written, text)
    return text.split()


def _sum(words: list[str], at: int) -> tuple[Fraction, int]:
    value, at = _product(words, at)
    while at < len(words) and words[at] in "+-":
        right, after = _product(words, at + 1)
        value = value + right if words[at] == "+" else value - right
        at = after
    return value, at


def _product(words: list[str], at: int) -> tuple[Fraction, int]:
    value, at = _power(words, at)
    while at < len(words) and words[at] in "*/":
        right, after = _power(words, at + 1)
        if words[at] == "/" and right == 0:
            raise NoResult("nothing can be divided by zero")
        value = value * right if words[at] == "*" else value / right
        at = after
    return value, at


def _power(words: list[str], at: int) -> tuple[Fraction, int]:
    value, at = _factor(words, at)
    if at < len(words) and words[at] == "^":
        exponent, at = _power(words, at + 1)
        if exponent.denominator != 1 or abs(exponent) > MAX_EXPONENT or abs(value) > 10**9:
            raise NoResult("that is a power I cannot work out")
        if value == 0 and exponent < 0:
            raise NoResult("nothing can be divided by zero")
        value = value ** int(exponent)
    return value, at


def _factor(words: list[str], at: int) -> tuple[Fraction, int]:
    if at >= len(words):
        raise NotASum("something is missing")
    if words[at] == "-":
        value, at = _factor(words, at + 1)
        return -value, at
    if words[at] == "half":
        value, at = _factor(words, at + 1)
        return value / 2, at
    if words[at] == "(":
        value, at = _sum(words, at + 1)
        if at >= len(words) or words[at] != ")":
            raise NotASum("a bracket is not closed")
        return value, at + 1
    found = read_number(words, at)
    if found is None:
        raise NotASum(words[at])
    value, at = found
    if at < len(words) and words[at] == "%of":
        whole, at = _factor(words, at + 1)
        return value * whole / 100, at
    return value, at
