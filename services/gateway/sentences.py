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


def cut(text: str, known: int, least: int) -> int | None:
    """Where the next utterance begins: behind the first end of a sentence that leaves `least` characters before it.

    Without one, behind a clause from `CLAUSES_FROM` characters on, between words from `WORDS_FROM` on. None: not in
    this text. `known` characters have been looked at before: no cut is in them, but one may be right behind them.
    """
    looks = (
        (_SENTENCE, max(1, least)),
        (_CLAUSE, max(2 * least, CLAUSES_FROM)),
        (_WORD, max(3 * least, WORDS_FROM)),
    )
    found = [_first(pattern, text, max(known, first)) for pattern, first in looks]
    return min((place for place in found if place is not None), default=None)


def utterances(text: str, least: int) -> list[str]:
    """A whole text as it is cut; one utterance when `least` is 0."""
    parts = []
    while least and (place := cut(text, 0, least)) is not None:
        parts.append(text[:place])
        text = text[place:]
    return [*parts, text]


def _first(pattern: re.Pattern[str], text: str, first: int) -> int | None:
    for match in pattern.finditer(text, max(0, first - _LONGEST)):
        if match.end() >= first and not (pattern is _SENTENCE and _goes_on(text, match.end())):
            return match.end()
    return None


def _goes_on(text: str, place: int) -> bool:
    """Before a small letter, behind an abbreviation or an initial a full stop ends no sentence; nor where none began,
    as behind the number of a list."""
    if text[place].islower() or _NO_END.search(text[max(0, place - _LONGEST) : place].rstrip()):
        return True
    return not any(map(str.isalpha, text[:place]))
