"""How many frames a talker may make. Pure: counts in, credit out."""

from __future__ import annotations


class Allowance:
    """What the caller allows, and at most `lead` frames beyond what it took, over all replicas that make them.

    `caller` is None while the caller runs free.
    """

    def __init__(self, lead: int, max_lead_frames: int) -> None:
        self._lead = lead
        self._caller = max_lead_frames or None
        self._made = 0
        self._taken = 0
        self.granted = min(lead, max_lead_frames or lead)

    @property
    def left(self) -> int:
        """Granted and not made yet."""
        return self.granted - self._made

    def credit(self, frames: int) -> int:
        """The caller allows more; returns the credit to send."""
        self._caller = frames + (self._made if self._caller is None else self._caller)
        return self._grant()

    def made(self, frames: int) -> None:
        """The talker made them."""
        self._made += frames

    def taken(self, frames: int) -> int:
        """The caller took the sound of them; returns the credit to send, at least a quarter of the lead or none."""
        self._taken += frames
        return self._grant()

    def _grant(self) -> int:
        window = self._taken + self._lead
        allowed = window if self._caller is None else min(window, self._caller)
        is_worth_it = allowed - self.granted >= self._lead // 4 or allowed == self._caller
        more = max(0, allowed - self.granted) if is_worth_it else 0
        self.granted += more
        return more
