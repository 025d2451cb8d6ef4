"""What mini has learned to say, as the file that its checkpoint carries: English in the characters of the corpus, and
how long a text it speaks steadily.

Accented letters are read without their accents, signs as their names, typographic marks as the plain ones; what is left
(other scripts, emoji) is refused by whoever loads the checkpoint.
"""

from __future__ import annotations

import string
import unicodedata

STEADY_CHARACTERS = 1
"""Sentence by sentence: it learned from sentences alone and in chains, and in chains it is not sure of the words."""
CHARACTERS = string.ascii_letters + string.digits + " .,?!;'"

_SIGNS = {
    "&": " and ", "%": " percent", "+": " plus ", "=": " equals ", "@": " at ", "#": " number ", "$": " dollars ",
    "€": " euros ", "£": " pounds ", "°": " degrees", "×": " times ", "÷": " divided by ", "½": " and a half",
}  # fmt: skip
_AS_PLAIN = {
    "'": "‘’‛ʼ´`",
    ",": ":–—―()[]{}",
    ".": "…",
    " ": "\t\n\r\v\f\"“”„‟«»‹›*_~^|\\/<>-‐‑‒•·\u00a0\u2009\u202f\u3000",
    "": "\u00ad\u200b\u200c\u200d\u2060\ufe0f\ufeff",
    "ss": "ß", "ae": "æ", "oe": "œ", "o": "ø", "l": "ł", "d": "đð", "th": "þ", "AE": "Æ", "OE": "Œ", "O": "Ø", "L": "Ł",
}  # fmt: skip
_LATIN_WITH_ACCENTS = range(0x00C0, 0x0250)
_ACCENTS = range(0x0300, 0x0370)


def repertoire() -> dict[str, object]:
    """The content of `repertoire.json`."""
    read_as = dict(_SIGNS)
    read_as |= {character: plain for plain, characters in _AS_PLAIN.items() for character in characters}
    for point in _LATIN_WITH_ACCENTS:
        base = unicodedata.normalize("NFKD", chr(point))[0]
        if base in string.ascii_letters:
            read_as.setdefault(chr(point), base)
    read_as |= {chr(point): "" for point in _ACCENTS}
    return {
        "speaks": "English",
        "steady_characters": STEADY_CHARACTERS,
        "characters": CHARACTERS,
        "read_as": dict(sorted(read_as.items())),
    }
