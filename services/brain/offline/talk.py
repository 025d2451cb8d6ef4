"""What the offline brain says to what it is told: a table of phrases, no model. Pure: words and the time in, words out.

It is a demonstration and a test double, understands a few dozen English phrases, and says so when it does not.
"""

from __future__ import annotations

import datetime
import re
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from services.brain.offline.arithmetic import NoResult, NotASum, evaluate
from services.brain.offline.numbers import ONES, ordinal, read_number, say_number
from services.brain.offline.story import STORY
from services.brain.prompt import INTERRUPTED, ChatMessage
from services.brain.types import Role

ABILITIES = (
    "I can tell you the time and the date, do sums like twelve times seven, count to any number up to a thousand, "
    "spell a word, repeat what you say, and tell you a long story."
)
HELP = f"I am the offline brain of Voicemesh, a small demonstration without a language model. {ABILITIES}"
NOT_UNDERSTOOD = f"I am sorry, I did not understand that. {ABILITIES}"
NOT_ENGLISH = (
    "I am sorry, I understand and speak only English here, because no language model is running. "
    f"In English, {ABILITIES}"
)
MAX_COUNT = 1000
MAX_PHRASE = 300
"""Longer turns can only be repeated."""


@dataclass(frozen=True)
class Talk:
    """All that an answer may depend on. `said` is the person's turn, `before` what came before it, oldest first."""

    said: str
    now: datetime.datetime
    before: Sequence[ChatMessage] = ()


def reply(talk: Talk) -> str:
    """The answer to one turn; never empty."""
    if _is_foreign(talk.said):
        return NOT_ENGLISH
    return _whole(talk, _plain(talk.said)) or _by_sentence(talk) or NOT_UNDERSTOOD


def _by_sentence(talk: Talk) -> str:
    """Several sentences are answered one by one, as far as they are understood."""
    sentences = [part for part in re.split(r"(?<=[.?!])\s+", talk.said) if part.strip()]
    if not 1 < len(sentences) <= 8:
        return ""
    answers = (_whole(Talk(part, talk.now, talk.before), _plain(part)) for part in sentences)
    return " ".join(answer for answer in answers if answer)


def _whole(talk: Talk, words: str) -> str:
    for pattern, answer in PHRASES:
        if (len(words) <= MAX_PHRASE or answer is _repeat) and (match := pattern.fullmatch(words)):
            return answer(match, talk)
    return _sum(talk.said)


def _plain(text: str) -> str:
    """Lower case, one space between words, no punctuation around them, no "please"."""
    text = unicodedata.normalize("NFKC", text).lower().replace("’", "'")
    text = re.sub(r"[^\w\s'+*/^()%.-]|[.](?!\d)", " ", text)
    text = re.sub(r"\b(?:please|um|uh|well then)\b", " ", text)
    return " ".join(text.split())


def _is_foreign(text: str) -> bool:
    letters = [char for char in text if char.isalpha()]
    return sum(not unicodedata.name(char, "").startswith("LATIN") for char in letters) * 4 > len(letters)


def _sum(text: str) -> str:
    try:
        return f"That is {say_number(evaluate(unicodedata.normalize('NFKC', text)))}."
    except NoResult as error:
        return f"I am afraid {error}."
    except NotASum:
        return ""


def _greet(match: re.Match[str], talk: Talk) -> str:
    hour = talk.now.hour
    part = "morning" if 4 <= hour < 12 else "afternoon" if 12 <= hour < 18 else "evening"
    return f"Good {part}! What can I do for you?"


def _time(match: re.Match[str], talk: Talk) -> str:
    hour, minute = talk.now.hour, talk.now.minute
    part = "at night" if hour < 5 else "in the morning" if hour < 12 else "in the afternoon"
    part = part if hour < 18 else "in the evening"
    clock = say_number((hour - 1) % 12 + 1)
    if minute == 0:
        return f"It is {clock} o'clock {part}."
    return f"It is {clock} {'oh ' if minute < 10 else ''}{say_number(minute)} {part}."


def _date(match: re.Match[str], talk: Talk) -> str:
    now = talk.now
    century, rest = divmod(now.year, 100)
    year = f"{say_number(century)} {say_number(rest)}" if rest > 9 else say_number(now.year)
    return f"Today is {now:%A}, the {ordinal(now.day)} of {now:%B}, {year}."


def _count(match: re.Match[str], talk: Talk) -> str:
    given = match.groupdict()
    down = bool(given.get("down"))
    first = _number(given.get("first")) if given.get("first") else (10 if down else 1)
    last = _number(given.get("last")) if given.get("last") else (1 if down else None)
    if first is None or last is None:
        return ""
    if abs(last - first) >= MAX_COUNT or max(abs(first), abs(last)) > 10**6:
        return f"That would take too long. I count {say_number(MAX_COUNT)} numbers at most."
    numbers = range(first, last + 1) if first <= last else range(first, last - 1, -1)
    return ", ".join(say_number(number) for number in numbers) + "."


def _number(text: str | None) -> int | None:
    words = (text or "").replace("-", " ").split()
    sign, words = (-1, words[1:]) if words[:1] == ["minus"] else (1, words)
    found = read_number(words)
    whole = found is not None and found[1] == len(words) and found[0].denominator == 1
    return sign * int(found[0]) if found is not None and whole else None


def _spell(match: re.Match[str], talk: Talk) -> str:
    word = match["word"]
    letters = [char.upper() if char.isalpha() else ONES[int(char)] for char in word if char.isalpha() or char in DIGITS]
    return f"{word.capitalize()} is spelled {', '.join(letters)}."


def _repeat(match: re.Match[str], talk: Talk) -> str:
    """The person's own words, as they wrote them."""
    said = re.sub(r"^\W*(?:please\s+)?(?:repeat(?:\s+after\s+me)?|say)\W+", "", talk.said, flags=re.IGNORECASE).strip()
    return said or "Say repeat after me, and then what I shall repeat."


def _go_on(match: re.Match[str], talk: Talk) -> str:
    """The rest of the answer that was cut: what was heard of it stands in the history."""
    for index in range(len(talk.before) - 1, -1, -1):
        message = talk.before[index]
        if message.role is Role.ASSISTANT and message.text.endswith(INTERRUPTED):
            heard = message.text.removesuffix(INTERRUPTED).strip()
            return rest_after(_answer_before(talk, index), heard) or "That was all."
    return "There is nothing to go on with."


def _answer_before(talk: Talk, index: int) -> str:
    """What the answer at `index` of the history would have been in full; a spoken request for it has no words there."""
    asked = next((m for m in reversed(talk.before[:index]) if m.role is Role.USER), None)
    if asked is None or not asked.text or re.fullmatch(GO_ON, _plain(asked.text)):
        return STORY
    return reply(Talk(asked.text, talk.now, talk.before[: talk.before.index(asked)]))


def rest_after(answer: str, heard: str) -> str:
    """What follows `heard` in `answer`, blanks aside; where it does not stand there, what follows as many words."""
    at = answer.find(heard)
    if at >= 0:
        return answer[at + len(heard) :].lstrip()
    return " ".join(answer.split()[len(heard.split()) :])


def _always(text: str) -> Callable[[re.Match[str], Talk], str]:
    return lambda match, talk: text


DIGITS = "0123456789"
GO_ON = r"(?:go on|continue|carry on|keep going|go ahead)(?: with the story)?"
_N = r"(?:minus )?[\w., ]+?"
_ASK = r"(?:can you |could you |would you |will you )?"
PHRASES: tuple[tuple[re.Pattern[str], Callable[[re.Match[str], Talk], str]], ...] = tuple(
    (re.compile(pattern), answer)
    for pattern, answer in (
        (r"(?:hello|hi|hey|greetings|good (?:morning|afternoon|evening|day))(?: there| you| everybody)?", _greet),
        (r"(?:hello |hi )?how are you(?: today| doing)?", _always("I am well, thank you. How can I help you?")),
        (r"help(?: me)?|what can you (?:do|say)(?: for me)?|what do you (?:do|know)|who are you"
         r"|what are you|what(?: is|'s) your name", _always(HELP)),
        (r"what(?: is|'s) the time(?: now)?|what time is it(?: now)?|" + _ASK + r"tell me the time", _time),
        (r"what(?: is|'s) (?:the date|today's date|today)(?: today)?|what day is (?:it|today)(?: today)?|"
         + _ASK + r"tell me the date", _date),
        (_ASK + r"count (?P<down>down|backwards?)(?: from (?P<first>" + _N + r"))?(?: to (?P<last>" + _N + r"))?",
         _count),
        (_ASK + r"count(?: up)?(?: from (?P<first>" + _N + r"))? (?:up )?to (?P<last>" + _N + r")", _count),
        (_ASK + r"(?:spell|how do you spell)(?: the word)? (?P<word>[\w'-]{1,60})", _spell),
        (r"(?:repeat(?: after me)?|say)(?: .+)?", _repeat),
        (_ASK + r"(?:tell me |read me |let me hear )?(?:a |another |the )?(?:very )?(?:long |short |good )?story"
         r"(?: again)?", _always(STORY)),
        (GO_ON, _go_on),
        (r"thanks?(?: you)?(?: very much| a lot| so much)?", _always("You are welcome.")),
        (r"(?:good ?bye|bye|bye bye|see you|good night)(?: for now| later)?", _always("Goodbye. It was nice to talk.")),
        (r"(?:stop|be quiet|quiet|enough|silence|never mind)(?: now| it)?", _always("All right.")),
        (r"yes|no|ok|okay|sure|right", _always("All right. What shall I do?")),
    )
)  # fmt: skip
