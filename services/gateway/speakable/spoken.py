"""Numbers, units, dates and abbreviations as they are said, for models that do not read them well. The second half of
the filter, on top of `filter.py`; pure, and as indifferent to cuts.

`auto` rewrites what holds a sign that few models read right (money, shares, units, clocks, dates, minus); `on` rewrites
every number and common abbreviations too. A number is held back until what follows cannot belong to it, an
abbreviation while it may still be one; everything else goes on at once.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Literal

from services.gateway.speakable.pieces import Piece
from services.gateway.speakable.readings import ENDINGS, SCALES, SUFFIXES, Spelled, reading

Normalisation = Literal["off", "auto", "on"]
MAX_HELD = 64
_ABBREVIATIONS = {
    "Mr.": "Mister",
    "Mrs.": "Missis",
    "Ms.": "Miz",
    "Dr.": "Doctor",
    "Prof.": "Professor",
    "vs.": "versus",
    "etc.": "et cetera",
    "e.g.": "for example",
    "i.e.": "that is",
    "approx.": "approximately",
}
_SHORT = "|".join(map(re.escape, sorted(_ABBREVIATIONS, key=len, reverse=True)))
_PARTIAL = "|".join(
    sorted({re.escape(word[:end]) for word in _ABBREVIATIONS for end in range(1, len(word))}, key=len, reverse=True)
)
_FIRST = "".join(sorted({word[0] for word in _ABBREVIATIONS}))
# A character set first, what stands before it second: the expression finds it as fast as `find` does.
_MAY_START_NUMBER = re.compile(r"[−$€£¥￥\d-](?<![A-Za-z0-9_.,].)")
_MAY_START = re.compile(rf"[−$€£¥￥\d{_FIRST}-](?<![A-Za-z0-9_.,].)")
_STARTS = re.compile(r"[-−]?[$€£¥￥]?\d|[-−]?[$€£¥￥]\Z|[-−]\Z")
_SHORT_STARTS = re.compile(rf"{_SHORT}|(?:{_PARTIAL})\Z")
_NUMBER = re.compile(r"([-−]?)([$€£¥￥]?)(\d+(?:[.,:/–-]\d+)*)")
_JOINTS = frozenset(".,:/–-")
_ENDING = re.compile("|".join(re.escape(word) for word in sorted(ENDINGS, key=len, reverse=True)))
_ENDING_PARTS = frozenset(word[:end] for word in ENDINGS for end in range(1, len(word) + 1))
_LONGEST = max(map(len, ENDINGS))
_BLANK_BEFORE = frozenset(" \u00a0")
_HAN = re.compile(r"[\u3400-\u9fff\uf900-\ufaff]")
_LETTER = re.compile(r"[A-Za-z\u00c0-\u024f\u3400-\u9fff\uf900-\ufaff]")


class Reader:
    """One text, after its markup was left out. `language`: of a text that begins with a number, `chinese` or any."""

    def __init__(self, everything: bool, language: str = "") -> None:
        self._everything = everything
        self._is_chinese = language.lower() in ("chinese", "zh")
        self._text = ""  # spoken before, one character, and what is held
        self._spans: list[tuple[int, int]] = []  # of each of its characters
        self._judged = 0  # of them were spoken
        self._pieces: list[Piece] = []

    def feed(self, pieces: Iterable[Piece]) -> tuple[Piece, ...]:
        """More text; returns what of it can be spoken, in order."""
        pieces = tuple(pieces)
        if self._judged == len(self._text) and self._is_plain("".join(piece.text for piece in pieces)):
            return pieces
        for piece in pieces:
            self._text += piece.text
            if piece.is_verbatim:
                self._spans += [(at, at + 1) for at in range(piece.original_start, piece.original_end)]
            else:
                self._spans += [(piece.original_start, piece.original_end)] * len(piece.text)
        return self._scan(False)

    def flush(self) -> tuple[Piece, ...]:
        """There is no more text."""
        return self._scan(True)

    def _is_plain(self, text: str) -> bool:
        """Whether nothing begins in there; most words go this way."""
        before = self._text[-1:]
        if text and self._next_start(before + text, len(before)) < len(before) + len(text):
            return False
        if text:
            self._note(text)
            self._text, self._spans, self._judged = text[-1], [(0, 0)], 1
        return True

    def _scan(self, final: bool) -> tuple[Piece, ...]:
        text, place = self._text, self._judged
        while place < len(text):
            start = self._next_start(text, place)
            self._tell(place, start)
            place = start
            if start == len(text):
                break
            after = self._judge(text, start, final)
            if after is None:
                break
            place = after
        kept = max(0, place - 1)
        self._text, self._spans, self._judged = text[kept:], self._spans[kept:], place - kept
        pieces, self._pieces = tuple(self._pieces), []
        return pieces

    def _next_start(self, text: str, place: int) -> int:
        candidates = _MAY_START if self._everything else _MAY_START_NUMBER
        for found in candidates.finditer(text, place):
            start = found.start()
            if _STARTS.match(text, start) is not None:
                return start
            if self._everything and _SHORT_STARTS.match(text, start) is not None:
                return start
        return len(text)

    def _judge(self, text: str, start: int, final: bool) -> int | None:
        """The place behind what begins there; None when that takes more text."""
        number = _NUMBER.match(text, start)
        if number is not None:
            return self._number(text, number, final)
        short = _SHORT_STARTS.match(text, start) if self._everything else None
        if short is not None and short[0] in _ABBREVIATIONS:
            return self._say(start, short.end(), _ABBREVIATIONS[short[0]])
        if final or len(text) - start > MAX_HELD:
            self._tell(start, len(text))
            return len(text)
        return None

    def _number(self, text: str, number: re.Match[str], final: bool) -> int | None:
        end = number.end()
        is_all = final or len(text) - number.start() > MAX_HELD
        is_joint = text[end : end + 1] in _JOINTS and end + 1 >= len(text)
        ending, after, is_open = self._ending(text, number)
        if not is_all and (end == len(text) or is_joint or is_open or after == len(text)):
            return None
        if ending and text[after : after + 1].isalnum() and not _HAN.match(text[after]):
            ending, after = "", end  # 5 men
        behind = text[after : after + 1]
        is_word = behind.isalpha() and not ending and not _HAN.match(behind)  # 3D, 1990s
        sign, money, body = number.groups()
        words = None
        if not is_word and len(body) <= MAX_HELD // 2:
            is_chinese = self._is_chinese or _HAN.match(behind) is not None
            words = reading(Spelled(body, sign, money, ending, behind, is_chinese, self._everything))
        if words is not None:
            return self._say(number.start(), after, words)
        self._tell(number.start(), after)
        return after

    def _ending(self, text: str, number: re.Match[str]) -> tuple[str, int, bool]:
        """What behind a number belongs to it, the place behind that, and whether more text may make it more."""
        end = number.end()
        start = end + (text[end : end + 1] in _BLANK_BEFORE)
        rest = text[start : start + _LONGEST + 1]
        is_open = start + len(rest) == len(text) and (not rest or rest in _ENDING_PARTS)
        found = _ENDING.match(rest)
        if found is None or (found[0] in SCALES) != bool(number[2]):
            return "", end, is_open
        is_decade = found[0] == "s" and start == end and text[end - 1] == "0"
        if is_decade or (found[0] in SUFFIXES and start > end):
            return "", end, is_open
        return found[0], start + found.end(), is_open

    def _say(self, start: int, end: int, words: str) -> int:
        self._pieces.append(Piece(words, self._spans[start][0], self._spans[end - 1][1]))
        self._note(words)
        return end

    def _tell(self, start: int, end: int) -> None:
        """As it stands, in stretches that stand for as many characters, or for one range as a whole."""
        at = start
        while at < end:
            first, last = self._spans[at]
            stop = at + 1
            if last == first + 1:
                while stop < end and self._spans[stop] == (first + stop - at, first + stop - at + 1):
                    stop += 1
            self._add(Piece(self._text[at:stop], first, self._spans[stop - 1][1]))
            at = stop
        self._note(self._text[start:end])

    def _add(self, piece: Piece) -> None:
        last = self._pieces[-1] if self._pieces else None
        if last is not None and last.is_verbatim and piece.is_verbatim and piece.original_start == last.original_end:
            self._pieces[-1] = Piece(last.text + piece.text, last.original_start, piece.original_end)
        elif last is not None and (last.original_start, last.original_end) == (
            piece.original_start,
            piece.original_end,
        ):
            self._pieces[-1] = Piece(last.text + piece.text, last.original_start, last.original_end)
        else:
            self._pieces.append(piece)

    def _note(self, spoken: str) -> None:
        """Which language is spoken: that of the last letter."""
        letters = _LETTER.findall(spoken)
        if letters:
            self._is_chinese = _HAN.match(letters[-1]) is not None
