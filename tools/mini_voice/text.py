"""Sentences for training and for tests, made from `phrases` and a lexicon: the same seed gives the same sentences.

Refuses to know sound. A lexicon is a list of (word, weight); `lexicon.py` reads one from what is installed.
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import accumulate

from tools.mini_voice.phrases import FIXED, PATTERNS, WORDS

_SLOT = re.compile(r"\{(\w+)\}")
_MONTHS = WORDS["month"].split()
_GLUE = WORDS["glue"].split()


@dataclass
class Writer:
    """Draws sentences. `lexicon` words appear in `{any}` slots and in word strings, tempered by `flatness`.

    `answers` are texts to draw from beside them, a few in a hundred.
    """

    seed: int
    lexicon: Sequence[tuple[str, float]]
    flatness: float = 0.5
    answers: Sequence[str] = ()
    _random: random.Random = field(init=False)
    _words: list[str] = field(init=False)
    _weights: list[float] = field(init=False)

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)
        self._words = [word for word, _ in self.lexicon]
        self._weights = list(accumulate(weight**self.flatness for _, weight in self.lexicon))

    def sentence(self) -> str:
        """One sentence of 1 to about 20 words."""
        kind = self._random.random()
        if self.answers and kind < 0.06:
            return self._random.choice(self.answers)
        if kind < 0.45:
            return self.pattern()
        if kind < 0.95:
            return self.word_string(self._random.choice((2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 8, 9, 10, 12)))
        return self._random.choice(FIXED)

    def pattern(self) -> str:
        """A sentence from one of the patterns."""
        return _capital(_SLOT.sub(lambda slot: self._fill(slot[1]), self._random.choice(PATTERNS)))

    def word_string(self, count: int) -> str:
        """`count` words that predict nothing of each other, with commas: what alignment is learned from."""
        words = [self._any() if self._random.random() < 0.72 else self._random.choice(_GLUE) for _ in range(count)]
        if self._random.random() < 0.1:
            words[self._random.randrange(count)] = self._random.choice(WORDS["person"].split())
        for i in range(count - 1):
            if self._random.random() < 0.08:
                words[i] += ","
        return _capital(" ".join(words)) + self._random.choices(".?!", (8, 1, 1))[0]

    def paragraph(self, sentence_count: int) -> str:
        """Several sentences in a row."""
        return " ".join(self.sentence() for _ in range(sentence_count))

    def _fill(self, slot: str) -> str:
        if slot in WORDS:
            return self._random.choice(WORDS[slot].split())
        return {
            "any": self._any,
            "number": self._number,
            "time": self._time,
            "date": self._date,
            "digits": self._digits,
        }[slot]()

    def _any(self) -> str:
        return self._random.choices(self._words, cum_weights=self._weights)[0]

    def _number(self) -> str:
        return str(self._random.choice((self._random.randrange(2, 20), self._random.randrange(20, 100))))

    def _time(self) -> str:
        hour = self._random.choice(WORDS["number_word"].split()[:12])
        return self._random.choice((f"{hour} o'clock", f"half past {hour}", f"ten to {hour}", f"quarter past {hour}"))

    def _date(self) -> str:
        day = self._random.choice(WORDS["ordinal"].split())
        return f"{self._random.choice(_MONTHS)} {day}, nineteen {self._random.choice(WORDS['number_word'].split()[9:])}"

    def _digits(self) -> str:
        return " ".join(str(self._random.randrange(10)) for _ in range(self._random.randrange(2, 6)))


def evaluation_sentences(count: int, seed: int = 77) -> list[str]:
    """Distinct pattern sentences of 4 to 12 words, kept out of training; no digits, so that a grammar knows them."""
    writer = Writer(seed, [(noun, 1.0) for noun in WORDS["noun"].split()])
    found: dict[str, None] = {}
    while len(found) < count:
        sentence = writer.pattern()
        if 4 <= len(sentence.split()) <= 12 and not re.search(r"\d", sentence):
            found[sentence] = None
    return list(found)


def normal_form(sentence: str) -> str:
    """Lower-case words alone: what counts as the same sentence when training and test are kept apart."""
    return " ".join(re.findall(r"[a-z0-9']+", sentence.lower()))


def _capital(sentence: str) -> str:
    return sentence[:1].upper() + sentence[1:]
