"""When enough of an answer's text has come to begin speaking it. Pure.

Open when the first of these holds: a strong boundary behind a word; enough tokens (three from a fast brain, up to
eight from a slow one, whose next word may be long in coming); some time since the first token; the end. But for the
end, there must be a word that no further text can change. What has come of the next one passes too: the talker holds
it back itself until it is whole.
"""

from __future__ import annotations

from services.gateway.turns.heard import word_end
from services.gateway.turns.settings import TurnSettings

_STRONG = frozenset(".!?…:;。！？：；\n")
_ANYWAY_CHARACTERS = 48  # an unbroken piece this long will not become a word by waiting


class FirstPacketGate:
    """One answer. `open` stays true once it is; what comes then passes without being looked at."""

    def __init__(self, settings: TurnSettings) -> None:
        self._settings = settings
        self._text = ""
        self._tokens = 0
        self._first_s = 0.0
        self._last_s = 0.0
        self._now_s = 0.0
        self.open = False
        self.waited_s = 0.0  # from the first token until it opened

    def add(self, text: str, now_s: float, token_count: int = 1) -> bool:
        """More text, of `token_count` tokens; returns whether all of it may be spoken from here on."""
        if self.open:
            return True
        if not self._tokens:
            self._first_s = now_s
        self._tokens += max(token_count, 0)
        self._last_s = now_s
        self._now_s = now_s
        self._text += text
        return self._decide(now_s, self._enough_tokens() or self._strong())

    def tick(self, now_s: float) -> bool:
        """Time has passed."""
        self._now_s = now_s
        return self.open or self._decide(now_s, False)

    def finish(self, now_s: float) -> bool:
        """No more text will come: what there is may be spoken."""
        if not self.open:
            self._open(now_s)
        return True

    @property
    def due_s(self) -> float | None:
        """When to call `tick`; None: no text yet, or open, or waiting for the end of a word."""
        if self.open or not self._tokens:
            return None
        due_s = self._first_s + self._settings.gate_wait_s
        return None if due_s <= self._now_s else due_s

    def _decide(self, now_s: float, enough: bool) -> bool:
        late = bool(self._tokens) and now_s >= self._first_s + self._settings.gate_wait_s
        if (enough or late) and self._has_word():
            self._open(now_s)
        return self.open

    def _open(self, now_s: float) -> None:
        self.open = True
        self.waited_s = now_s - self._first_s if self._tokens else 0.0
        self._text = ""

    def _has_word(self) -> bool:
        end = word_end(self._text, len(self._text), complete=False)
        has_letters = any(character.isalnum() for character in self._text[:end])
        return has_letters or len(self._text) >= _ANYWAY_CHARACTERS

    def _enough_tokens(self) -> bool:
        settings = self._settings
        if self._tokens < settings.gate_tokens:
            return False
        gap_s = (self._last_s - self._first_s) / max(self._tokens - 1, 1)
        if gap_s < settings.gate_gap_s:
            return True
        slower = gap_s / settings.gate_gap_s if settings.gate_gap_s else float("inf")
        return self._tokens >= min(settings.gate_tokens * slower, settings.gate_slow_tokens)

    def _strong(self) -> bool:
        """A strong mark behind a word; a dot behind a digit may be a decimal point until something follows it."""
        text, word = self._text, False
        for index, character in enumerate(text):
            word = word or character.isalnum()
            if not word or character not in _STRONG:
                continue
            if character not in ".:" or not text[index - 1].isdigit():
                return True
            if index + 1 < len(text) and not text[index + 1].isdigit():
                return True
        return False
