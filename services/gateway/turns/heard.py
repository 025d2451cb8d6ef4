"""Which words of an answer were heard. Pure; positions in, positions out.

    sent samples ─ what the client still buffers ─▶ heard samples ─▶ codec frame ─▶ character ─▶ the end of a word

Two limits meet. What the talker had read when it made a frame is a hard one: later words cannot be in it. But the
talker reads ahead of its own voice (a token with every frame, while a spoken word takes several), so the position is
estimated from how much speech the text makes: exactly shared out once the answer is finished, before that by this
voice's pace. The lower one of the two counts, rounded down to the end of a word: rather a word too few than one that
was never said.

The text is the one that was spoken (after the speakable filter); whoever filtered it maps it back.
"""

from __future__ import annotations

import unicodedata
from bisect import bisect_right
from dataclasses import dataclass

SAMPLE_RATE_HZ = 24_000
SAMPLES_PER_FRAME = 1_920

_USUAL_UNITS_PER_S = 4.0  # about a syllable each; of a slow voice, until it is known
_SLOWEST, _FASTEST = 1.5, 15.0
_LEARNING = 0.3
_SHORTEST_LESSON_S = 2.0
_MARGIN_UNITS = 1.0  # that an estimate is early rather than late: measured by bench/turns.py
_LETTER, _DIGIT, _SYLLABLE, _SPACE = 0.3, 1.0, 1.0, 0.1
_CLAUSE_PAUSE, _SENTENCE_PAUSE = 0.8, 1.6
_CLAUSE, _SENTENCE = frozenset(",;:，、；："), frozenset(".!?…。！？\n")
_JOINERS = frozenset("'’.,:-/_@")  # inside a word or a number: don't, 3.14, e-mail
_PREPOSED = frozenset("เแโใไເແໂໃໄ")  # vowels written before their consonant
_FIRST_KANA = "\u3040"  # from here on a character is a syllable or more, and nothing is appended to it
_LONGEST_WORD = 128  # what is longer is no word: cut anywhere


@dataclass(frozen=True, slots=True)
class Heard:
    """How far an answer was heard. `text` is its first `character_count` characters, complete words."""

    sample_count: int
    frame_count: int  # complete ones
    character_count: int
    text: str

    @property
    def seconds(self) -> float:
        """How long it was heard."""
        return self.sample_count / SAMPLE_RATE_HZ


class SpeakingPace:
    """How fast a voice speaks, in units of about a syllable; learned from its finished answers, kept per session."""

    def __init__(self) -> None:
        self.units_per_s = _USUAL_UNITS_PER_S
        self._lessons = 0

    def learn(self, units: float, seconds: float) -> None:
        """A text of `units` took so long; the first lessons count for more."""
        if seconds >= _SHORTEST_LESSON_S and units > 0:
            self._lessons += 1
            measured = min(max(units / seconds, _SLOWEST), _FASTEST)
            self.units_per_s += max(_LEARNING, 1 / self._lessons) * (measured - self.units_per_s)


class HeardLedger:
    """One answer: its text and its sound as they came. Adding costs what is added, asking log of it."""

    def __init__(self, pace: SpeakingPace) -> None:
        self._pace = pace
        self._text: list[str] = []
        self._units: list[float] = [0.0]  # of the first n characters
        self._ends: list[int] = []  # samples up to the end of each packet …
        self._read: list[int] = []  # … and the characters that its talker had read
        self._finished = False

    def add_text(self, text: str) -> None:
        """More of the text that is spoken."""
        units = self._units[-1]
        for character in text:
            units += _units(character)
            self._units.append(units)
        self._text.append(text)

    def add_audio(self, first_sample: int, sample_count: int, read_character_count: int) -> None:
        """A packet of its sound, at 24 kHz, in order; `read_character_count`: of all text, when it was made."""
        end = first_sample + sample_count
        if self._ends and end <= self._ends[-1]:
            return  # known already
        self._ends.append(end)
        self._read.append(max(read_character_count, self._read[-1] if self._read else 0))

    def finish(self) -> None:
        """No more text and no more sound will come."""
        if not self._finished and self._ends:
            self._finished = True
            self._pace.learn(self._units[-1], self._ends[-1] / SAMPLE_RATE_HZ)

    @property
    def text(self) -> str:
        """All of it so far."""
        if len(self._text) > 1:
            self._text = ["".join(self._text)]
        return self._text[0] if self._text else ""

    def heard(self, sent_sample_count: int, client_buffer_s: float) -> Heard:
        """What reached the ear when so much had been sent and the client still had `client_buffer_s` of it."""
        made = self._ends[-1] if self._ends else 0
        samples = min(max(sent_sample_count - round(client_buffer_s * SAMPLE_RATE_HZ), 0), made)
        text = self.text
        if self._finished and samples == made:
            characters = len(text)
        else:
            characters = word_end(text, self._characters(samples), self._finished)
        return Heard(samples, samples // SAMPLES_PER_FRAME, characters, text[:characters])

    def _characters(self, samples: int) -> int:
        if not samples:
            return 0
        if self._finished:
            units = self._units[-1] * samples / self._ends[-1]
        else:
            units = self._pace.units_per_s * samples / SAMPLE_RATE_HZ
        said = bisect_right(self._units, max(units - _MARGIN_UNITS, 0.0)) - 1
        # The packet that holds the last heard sample is the one whose end is the first not below it.
        packet = bisect_right(self._ends, samples - 1)
        return min(said, self._read[packet])


def word_end(text: str, limit: int, complete: bool = True) -> int:
    """The last position up to `limit` where a word is over. `complete`: nothing can come behind the text any more."""
    end = min(limit, len(text))
    for position in range(end, max(end - _LONGEST_WORD, 0), -1):
        if text[position - 1].isspace():
            continue
        if position == len(text):
            if complete or not _is_word(text[position - 1]) or text[position - 1] >= _FIRST_KANA:
                return position
        elif not _joined(text, position):
            return position
    return 0 if end <= _LONGEST_WORD else end


def is_syllable(character: str) -> bool:
    """Whether a character of a script that is written without spaces: each is a place to stop."""
    code = ord(character)
    return (
        0x3040 <= code <= 0x30FF  # kana
        or 0x3400 <= code <= 0x4DBF
        or 0x4E00 <= code <= 0x9FFF
        or 0x20000 <= code <= 0x3FFFF
        or 0xF900 <= code <= 0xFAFF
        or 0xFF66 <= code <= 0xFF9F
        or 0x0E00 <= code <= 0x0EFF  # Thai, Lao
        or 0x1000 <= code <= 0x109F  # Myanmar
        or 0x1780 <= code <= 0x17FF  # Khmer
    )


def _is_mark(character: str) -> bool:
    return unicodedata.category(character)[0] == "M" or character in "\u200d\u200c"


def _is_word(character: str) -> bool:
    return character.isalnum() or _is_mark(character)


def _joined(text: str, position: int) -> bool:
    """Whether the characters on both sides of a position belong to one word."""
    before, after = text[position - 1], text[position]
    if _is_mark(after) or before in _PREPOSED:
        return True
    if is_syllable(before) or is_syllable(after):
        return False
    if after in _JOINERS and position + 1 < len(text):
        after = text[position + 1]
        if is_syllable(after):
            return False
    elif before in _JOINERS and position > 1:
        before = text[position - 2]
        if is_syllable(before):
            return False
    return _is_word(before) and _is_word(after)


def _units(character: str) -> float:
    if character.isdigit():
        return _DIGIT
    if is_syllable(character):
        return 0.0 if _is_mark(character) else _SYLLABLE
    if "\uac00" <= character <= "\ud7a3":  # a Hangul block is a syllable
        return _SYLLABLE
    if character in _SENTENCE:
        return _SENTENCE_PAUSE
    if character in _CLAUSE:
        return _CLAUSE_PAUSE
    if character.isspace():
        return _SPACE
    return _LETTER if character.isalpha() else 0.0
