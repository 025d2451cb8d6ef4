"""NFC of text that is still coming: where it is settled, and what its last character may yet become.

Pure Unicode, from the tables of `unicodedata`; knows no tokens.
"""

from __future__ import annotations

import unicodedata
from functools import cache, lru_cache

import regex

from common.errors import InvalidRequest

_L, _V, _T, _LV = range(0x1100, 0x1113), range(0x1161, 0x1176), range(0x11A8, 0x11C3), range(0xAC00, 0xD7A4)


_JOINED_CHARACTERS = 64
"""Characters that may join the one before them. Unicode's stream-safe format (UAX #15) holds 30 to be more than any
script needs; normalising a flood of them takes the square of its length."""

_FLOOD = regex.compile(rf"[\p{{M}}\u1161-\u1175\u11A8-\u11C2]{{{_JOINED_CHARACTERS}}}")

_LAST_COMPOSITE = 0x30000
"""No plane beyond the second has canonical decompositions into two characters."""


@cache
def _composites() -> tuple[frozenset[str], dict[str, tuple[str, ...]]]:
    """Characters that compose with one before them, and the composed characters by their first decomposed character."""
    seconds: set[str] = set()
    by_base: dict[str, list[str]] = {}
    for code in range(_LAST_COMPOSITE):
        decomposed = unicodedata.decomposition(chr(code))
        if not decomposed or decomposed.startswith("<") or unicodedata.normalize("NFC", chr(code)) != chr(code):
            continue
        parts = decomposed.split()
        if len(parts) == 2:
            seconds.add(chr(int(parts[1], 16)))
            by_base.setdefault(unicodedata.normalize("NFD", chr(code))[0], []).append(chr(code))
    return frozenset(seconds), {base: tuple(found) for base, found in by_base.items()}


def check_joined(text: str) -> None:
    """`InvalidRequest` for a flood of combining characters, which no voice could say."""
    if _FLOOD.search(text):
        raise InvalidRequest(f"{_JOINED_CHARACTERS} combining characters in a row are no text")


def starts_anew(char: str) -> bool:
    """Whether nothing before `char` can change through it, nor it through anything before."""
    first = unicodedata.normalize("NFD", char)[0]
    if unicodedata.combining(first) or ord(first) in _V or ord(first) in _T:
        return False
    return first not in _composites()[0]


def settle(text: str) -> tuple[str, str]:
    """Split into NFC text that no later character changes, and the raw rest that one may change."""
    cut = next((i for i in range(len(text) - 1, -1, -1) if starts_anew(text[i])), 0)
    if len(text) == cut + 1 and starts_anew(text[cut]) and not variants(text[cut]):
        cut += 1
    return unicodedata.normalize("NFC", text[:cut]), text[cut:]


@lru_cache(4096)
def variants(rest: str) -> tuple[str, ...]:
    """What the first character of NFC(`rest`) may still become when combining characters follow."""
    normal, parts = unicodedata.normalize("NFC", rest), unicodedata.normalize("NFD", rest)
    found = []
    for composed in _candidates(parts, normal):
        missing = "".join(mark for mark in unicodedata.normalize("NFD", composed)[1:] if mark not in parts[1:])
        if composed != normal[0] and unicodedata.normalize("NFC", rest + missing).startswith(composed):
            found.append(composed)
    return tuple(found)


def _candidates(parts: str, normal: str) -> tuple[str, ...]:
    code, first = ord(parts[0]), ord(normal[0])
    if code in _L:
        if first in _LV:  # a syllable with its vowel: a final consonant may follow, once
            return tuple(map(chr, range(first + 1, first + 28))) if (first - _LV[0]) % 28 == 0 else ()
        start = _LV[0] + (code - _L[0]) * 588
        return tuple(map(chr, range(start, start + 588)))
    return _composites()[1].get(parts[0], ())
