"""The text of one utterance as the talker is told it: kept, so that another replica can be told the same, and cut into
segments where its source is too slow for one, or where it is too long for its voice. Pure: no clock, no stream.

    feed ──▶ held back: a word that may go on ──▶ the last segment ──▶ (told at once when it is the one being spoken)
"""

from __future__ import annotations

from collections import deque
from itertools import islice

from common.errors import InvalidRequest
from services.gateway.sentences import utterances

# Scripts written without spaces: a cut after any of their characters is a cut between words, as far as anyone can tell.
_UNSPACED = (
    (0x0E00, 0x0EFF),
    (0x1000, 0x109F),
    (0x1780, 0x17FF),
    (0x2E80, 0xA4CF),
    (0xF900, 0xFAFF),
    (0x20000, 0x3FFFF),
)
_MOST_WAITING = 4  # times the limit of one part, over all parts that are not spoken yet
_INSIDE_WORDS = "'’-_"


def whole_words(text: str) -> int:
    """How many characters of a text can be spoken without cutting a word that may go on behind it."""
    end = len(text)
    while end and (text[end - 1].isalnum() or text[end - 1] in _INSIDE_WORDS) and not _is_unspaced(text[end - 1]):
        end -= 1
    return end


def _is_unspaced(character: str) -> bool:
    return any(first <= ord(character) <= last for first, last in _UNSPACED)


class Segment:
    """Text that the talker speaks as one utterance of its own."""

    def __init__(self, first_character: int) -> None:
        self.first_character = first_character
        self.text = ""
        self.is_closed = False

    @property
    def is_blank(self) -> bool:
        return not self.text.strip()


class Script:
    """All that an utterance has been told. With `by_words`, words are held back until they are whole, so that it can be
    closed between them at any time. A segment that holds `steady_characters` ends with its sentence; 0: with the text.

    `max_characters` counts from where the caller last closed.
    """

    def __init__(self, by_words: bool, max_characters: int, steady_characters: int = 0) -> None:
        self._by_words = by_words
        self._max_characters = max_characters
        self._steady_characters = steady_characters
        self._fed = 0  # characters, in all
        self._characters = 0  # since it was closed from outside
        self._held = ""
        self.segments = deque([Segment(0)])
        self.is_flushed = False

    @property
    def spoken(self) -> Segment:
        """The one that the talker speaks now."""
        return self.segments[0]

    @property
    def has_more(self) -> bool:
        """Whether a segment with something to say waits behind it."""
        return any(not segment.is_blank for segment in islice(self.segments, 1, None))

    def feed(self, text: str) -> str:
        """More text; returns what of it the talker is to be told now. `InvalidRequest` when it is too long."""
        waiting = self._fed - self.spoken.first_character
        if self._characters + len(text) > self._max_characters or waiting > _MOST_WAITING * self._max_characters:
            sentence = f"An utterance holds at most {self._max_characters} characters; speak it as several."
            raise InvalidRequest(sentence, reason="TOO_LARGE", max_characters=str(self._max_characters))
        self._characters += len(text)
        self._fed += len(text)
        whole = whole_words(text) if self._by_words else len(text)
        if not whole:
            self._held += text  # which is a word that goes on
            return ""
        text, self._held, whole = self._held + text, text[whole:], len(self._held) + whole
        return self._add(text[:whole])

    def close(self) -> bool:
        """What was said so far shall be spoken to its end without waiting for more; False when that is nothing."""
        last = self.segments[-1]
        if last.is_closed or last.is_blank:
            return False
        self._characters = len(self._held)
        self._begin_next()
        return last is self.spoken

    def flush(self) -> str:
        """There is no more text; returns what the talker is to be told before its own flush."""
        self.is_flushed = True
        rest, self._held = self._held, ""
        told = self._add(rest)
        self.segments[-1].is_closed = True
        return told

    def advance(self) -> Segment:
        """The one that was spoken is over; returns the next that has something to say, or the last."""
        self.segments.popleft()
        while len(self.segments) > 1 and self.spoken.is_closed and self.spoken.is_blank:
            self.segments.popleft()
        return self.spoken

    def _add(self, text: str) -> str:
        """Returns what of it belongs to the segment that is being spoken."""
        last = self.segments[-1]
        known = len(last.text)
        last.text, *others = utterances(last.text + text, self._steady_characters, known)
        for other in others:
            self._begin_next()
            self.segments[-1].text = other
        return last.text[known:] if last is self.spoken else ""

    def _begin_next(self) -> None:
        last = self.segments[-1]
        last.is_closed = True
        self.segments.append(Segment(last.first_character + len(last.text)))
