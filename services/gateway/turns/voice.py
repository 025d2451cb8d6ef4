"""What the user's windows add up to: a candidate, how much of it was voice, how long it has been silent since.

Counts samples, never seconds of a clock: sound that came late or in a burst counts as what it is. Pure.

    voiced  ..■■.■■■■.....■....
              └ from_sample   └ end of the candidate once `lapse` is over
"""

from __future__ import annotations

from services.gateway.turns.events import VoiceWindow
from services.gateway.turns.states import LISTEN_RATE_HZ


class Voice:
    """The newest stretch of voice that nothing has been made of yet."""

    def __init__(self) -> None:
        self.now_sample = 0  # the end of the newest window
        self.from_sample: int | None = None  # where the candidate began; None: there is none
        self.last_voiced_sample = 0
        self.told = False  # the candidate has been told
        self.sounding = False  # the newest window was voice
        self.voiced_samples = 0
        self._ignoring = False

    def hear(self, window: VoiceWindow) -> bool:
        """Count a window; True if it is voice that counts."""
        self.now_sample = window.end_sample
        self.sounding = window.voiced and not window.echo
        if not self.sounding:
            return False
        self.last_voiced_sample = window.end_sample
        if self._ignoring:
            return False
        if self.from_sample is None:
            self.from_sample = window.end_sample - window.sample_count
        self.voiced_samples += window.sample_count
        return True

    @property
    def voiced_s(self) -> float:
        """How much of the candidate was voice."""
        return self.voiced_samples / LISTEN_RATE_HZ

    @property
    def silent_s(self) -> float:
        """How long it has been silent."""
        return (self.now_sample - self.last_voiced_sample) / LISTEN_RATE_HZ

    def lapse(self, after_s: float) -> bool:
        """Whether the candidate is over because of this much silence; it is forgotten then."""
        if self.silent_s < after_s:
            return False
        self._ignoring = False
        lapsed = self.from_sample is not None
        self.forget()
        return lapsed

    def forget(self) -> None:
        """The candidate was used, or was nothing: what is voiced next begins a new one."""
        self.from_sample = None
        self.told = False
        self.voiced_samples = 0

    def ignore(self) -> None:
        """What is voiced from here on does not count, until a silence (which `lapse` sees)."""
        self.forget()
        self._ignoring = True
