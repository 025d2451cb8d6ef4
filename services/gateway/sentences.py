"""Where a text that is long for its voice goes on as an utterance of its own. Pure; how the text comes in pieces does
not matter, because a cut depends on the characters before it and on the one behind it alone."""

from __future__ import annotations

import re

CLAUSES_FROM, WORDS_FROM = 240, 360
"""Characters of an utterance after which it is cut behind a clause, or between words, whatever the voice: some 19 and
28 seconds of speech."""
_SENTENCE = re.compile(
    r"(?:[.!?…]{1,8}[\"'”’)\]]{0,8}\s{1,64}|[。！？…]{1,8}[”’」』）]{0,8})(?=[^\s.!?…。！？\"'”’)\]」』）])"
)
_CLAUSE = re.compile(r"(?:[,;:—–]\s{1,64}|[，；：、])(?=\S)")
_WORD = re.compile(r"\s(?=\S)")
_LONGEST = 80  # characters that an expression above may take
_NO_END = re.compile(r"\b(?:Mr|Mrs|Ms|Dr|Prof|St|vs|approx|[^\W\d_])\.\Z")
_AT_ONCE = 64  # characters that a look takes in: whatever a text holds, it costs in proportion to its length


def utterances(text: str, least: int, known: int = 0) -> list[str]:
    """A text at its cuts: all parts but the last are whole. One part where `least` is 0.

    An utterance ends with the first sentence that leaves it `least` characters. Without one, behind a clause from
    `CLAUSES_FROM` characters on, between words from `WORDS_FROM` on. `known` characters have been looked at before: no
    cut is in them, but one may be right behind them.
    """
    if not least:
        return [text]
    parts, begin, looked = [], 0, known
    for end in range(known + _AT_ONCE, len(text) + _AT_ONCE, _AT_ONCE):
        while (place := _cut(text, begin, looked, min(end, len(text)), least)) is not None:
            parts.append(text[begin:place])
            begin = looked = place
        looked = min(end, len(text))
    return [*parts, text[begin:]]


def _cut(text: str, begin: int, looked: int, end: int, least: int) -> int | None:
    """The first cut behind `begin`, of which there is none before `looked`, by what stands before `end`."""
    looks = ((_SENTENCE, least), (_CLAUSE, max(2 * least, CLAUSES_FROM)), (_WORD, max(3 * least, WORDS_FROM)))
    found = [_first(pattern, text, begin, max(looked, begin + count), end) for pattern, count in looks]
    return min((place for place in found if place is not None), default=None)


def _first(pattern: re.Pattern[str], text: str, begin: int, first: int, end: int) -> int | None:
    for match in pattern.finditer(text, max(begin, first - _LONGEST), end):
        place = match.end()
        if place >= first and not (pattern is _SENTENCE and _goes_on(text, begin, place)):
            return place
    return None


def _goes_on(text: str, begin: int, place: int) -> bool:
    """Before a small letter, behind an abbreviation or an initial a full stop ends no sentence; nor where none began,
    as behind the number of a list."""
    if text[place].islower() or _NO_END.search(text[max(begin, place - _LONGEST) : place].rstrip()):
        return True
    return place - begin <= CLAUSES_FROM and not any(map(str.isalpha, text[begin:place]))
