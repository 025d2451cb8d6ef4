"""How much one caller may ask for: sessions at once, calls and text per minute. Pure: times are arguments."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field

from common.errors import Overloaded

MAX_LEDGERS = 10_000
SESSION_RETRY_S = 5.0
"""When a caller whose sessions are all taken may look again: nobody knows when one of them ends."""


@dataclass(frozen=True)
class Limits:
    """Of one caller. None: as much as the process has."""

    max_sessions: int | None = None
    calls_per_minute: float | None = None
    characters_per_minute: float | None = None


UNLIMITED = Limits()


class Bucket:
    """Fills at a steady rate up to a minute's worth; what is taken must be in it.

    A single request for more than a minute's worth is let in when the bucket is full, and the debt is paid off first:
    it can never be in it as a whole.
    """

    def __init__(self, per_minute: float, now_s: float) -> None:
        self._per_s = per_minute / 60
        self._capacity = max(1.0, per_minute)
        self._level = self._capacity
        self._filled_s = now_s

    def take(self, amount: float, now_s: float) -> float:
        """Take it and return 0, or leave it and return in how many seconds it can be taken."""
        self._level = min(self._capacity, self._level + (now_s - self._filled_s) * self._per_s)
        self._filled_s = now_s
        missing = min(amount, self._capacity) - self._level
        if missing > 1e-9:
            return missing / self._per_s
        self._level -= amount
        return 0.0


@dataclass
class Ledger:
    """What one caller has taken."""

    limits: Limits
    calls: Bucket | None
    characters: Bucket | None
    sessions: int = 0

    @classmethod
    def of(cls, limits: Limits, now_s: float) -> Ledger:
        """Nothing yet."""
        calls, characters = limits.calls_per_minute, limits.characters_per_minute
        return cls(
            limits,
            None if calls is None else Bucket(calls, now_s),
            None if characters is None else Bucket(characters, now_s),
        )

    def call(self, now_s: float) -> None:
        """One call more. `Overloaded` says when to try again."""
        self._take(self.calls, 1, now_s, "calls")

    def enter(self) -> None:
        """One session more. `Overloaded` when there are as many as may be."""
        most = self.limits.max_sessions
        if most is not None and self.sessions >= most:
            sentence = f"This key has {most} sessions, as many as it may have at once."
            raise Overloaded(sentence, retry_after_s=SESSION_RETRY_S, limit="sessions")
        self.sessions += 1

    def leave(self) -> None:
        """One session less."""
        self.sessions -= 1

    def text(self, characters: int, now_s: float) -> None:
        """So many characters more to speak. `Overloaded` says when to try again."""
        self._take(self.characters, characters, now_s, "characters")

    def _take(self, bucket: Bucket | None, amount: float, now_s: float, what: str) -> None:
        wait_s = 0.0 if bucket is None else bucket.take(amount, now_s)
        if wait_s > 0:
            raise Overloaded(f"This key has used up its {what} per minute.", retry_after_s=wait_s, limit=what)


@dataclass
class Ledgers:
    """Of all callers, the most recent of them: a caller that is forgotten has been away for as long as ten thousand
    others came, and none that has a session is."""

    _known: OrderedDict[str, Ledger] = field(default_factory=OrderedDict)

    def of(self, name: str, limits: Limits, now_s: float) -> Ledger:
        """That caller's."""
        ledger = self._known.get(name)
        if ledger is None or ledger.limits != limits:
            sessions = 0 if ledger is None else ledger.sessions
            ledger = self._known[name] = Ledger.of(limits, now_s)
            ledger.sessions = sessions
        self._known.move_to_end(name)
        self._forget()
        return ledger

    def _forget(self) -> None:
        if len(self._known) <= MAX_LEDGERS:
            return
        oldest = next((name for name, ledger in self._known.items() if ledger.sessions == 0), None)
        if oldest is not None:
            del self._known[oldest]
