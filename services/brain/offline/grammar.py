"""The phrases that the offline brain can hear, as one closed JSGF grammar, and how to tell them from other sounds.

Beside the phrases stands a loop over single phones: whatever is no phrase fits the loop better and comes out as noise.
How readily is set by the loop's weight: JSGF weights are shares of 1, so the rest of the loop's share goes to a word
that nobody says. Pure.
"""

from __future__ import annotations

import re

from services.brain.offline.numbers import ONES, TENS

PHONES = (
    *(
        "AA",
        "AE",
        "AH",
        "AO",
        "AW",
        "AY",
        "B",
        "CH",
        "D",
        "DH",
        "EH",
        "ER",
        "EY",
        "F",
        "G",
        "HH",
        "IH",
        "IY",
        "JH",
        "K",
    ),
    *("L", "M", "N", "NG", "OW", "OY", "P", "R", "S", "SH", "T", "TH", "UH", "UW", "V", "W", "Y", "Z"),
)
"""Of the CMU dictionary; ZH is left out, it is rare and hears noise."""

NOISE_PREFIX = "xx"
"""What the names of single phones begin with."""

PHONE_WEIGHT = 1e-6
"""Share of all phones in the loop together. With espeak-ng (18 phrases, 10 others, 4 voices each): 1e-6 understood 48
of 72 exactly, 5 wrongly, and refused 38 of 40 others; 1e-10 understood 53, 9 wrongly, and refused only 32."""

_UNSAID = "antidisestablishmentarianism"
SPELLABLE = ("banana", "elephant", "music", "lighthouse", "coffee", "table", "window", "summer", "winter", "computer")
REPEATABLE = ("the sun is shining", "good things take time", "she sells sea shells", "i like music", "one two three")


def phone_word(phone: str) -> str:
    """The name of a phone in the loop."""
    return NOISE_PREFIX + phone.lower()


def vocabulary() -> frozenset[str]:
    """The words of the phrases, and the one that is never said."""
    text = re.sub(r"/[^/]*/|<[^>]*>|#JSGF.*|grammar brain|public", " ", grammar())
    return frozenset(word for word in re.findall(r"[a-z']+", text) if not word.startswith(NOISE_PREFIX))


def words_of(hypothesis: str) -> str:
    """What was heard, or "" when any of it was no phrase."""
    words = hypothesis.split()
    return "" if any(word.startswith(NOISE_PREFIX) or word == _UNSAID for word in words) else " ".join(words)


def grammar() -> str:
    """The whole grammar, as JSGF."""
    share = PHONE_WEIGHT / len(PHONES)
    phones = " | ".join(f"/{share:.20f}/ {phone_word(phone)}" for phone in PHONES)
    return f"""#JSGF V1.0;
grammar brain;
public <heard> = <phrase> | <noise>;
<noise> = <phone> [<noise>];
<phone> = {phones} | /{1 - PHONE_WEIGHT:.20f}/ {_UNSAID};
<phrase> = <greeting> | <sum> | <count> | <spell> | <repeat> | <question> | <short>;
<greeting> = hello [there] | hi [there] | good morning | good afternoon | good evening | how are you;
<question> = what can you do | help [me] | who are you | what time is it | what is the time | tell me the time
  | what is the date | what day is it | tell me the date | [please] tell me a [long] story;
<short> = go on | continue | thank you | goodbye | stop | yes | no;
<sum> = [what is | how much is | calculate] <number> <operator> <number> [<operator> <number>];
<operator> = plus | minus | times | multiplied by | divided by;
<count> = [please] count ([from <number>] [up] to <number> | (down | backwards) from <number>);
<spell> = spell ({" | ".join(SPELLABLE)});
<repeat> = repeat after me ({" | ".join(REPEATABLE)});
<number> = <small> | (a | <digit>) hundred [[and] <small>] | <small> thousand [<digit> hundred] [[and] <small>];
<small> = {" | ".join(ONES)} | <tens> [<digit>];
<tens> = {" | ".join(TENS)};
<digit> = {" | ".join(ONES[1:10])};
"""
