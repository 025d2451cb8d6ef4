"""What the offline brain says, so that mini says it well: its own answers, asked of it with many times and numbers."""

from __future__ import annotations

import datetime
import random
import re

from services.brain.offline.talk import HELP, NOT_ENGLISH, NOT_UNDERSTOOD, Talk, reply
from tools.mini_voice.phrases import WORDS

_QUESTIONS = (
    "hello", "how are you", "help", "what time is it", "what time is it", "what is the date", "what is the date",
    "thank you", "goodbye", "stop", "yes", "count from {a} to {b}", "count to {m}", "spell {word}", "spell {word}",
    "what is {n} times {m}", "what is {n} plus {m}", "{n} minus {m}", "{n} divided by {m}", "say {word} {word}",
)  # fmt: skip


def offline_answers(count: int, seed: int = 5) -> list[str]:
    """`count` answers in ASCII, and once each sentence of those that never change."""
    chance = random.Random(seed)
    answers = [_answer(chance) for _ in range(count)]
    fixed = [HELP, NOT_UNDERSTOOD, NOT_ENGLISH, _ask("tell me a story", chance)]
    sentences = [sentence for text in fixed for sentence in re.split(r"(?<=[.?!])\s+", text)]
    return [text for text in (*answers, *sentences) if text and text.isascii()]


def _answer(chance: random.Random) -> str:
    first = chance.randrange(1, 90)
    question = chance.choice(_QUESTIONS).format(
        a=first,
        b=first + chance.randrange(1, 9),
        n=chance.randrange(2, 100),
        m=chance.randrange(2, 13),
        word=chance.choice(WORDS["noun"].split()),
    )
    return _ask(question, chance)


def _ask(question: str, chance: random.Random) -> str:
    now = datetime.datetime(2026, 1, 1) + datetime.timedelta(minutes=chance.randrange(4 * 365 * 24 * 60))
    return reply(Talk(question, now))
