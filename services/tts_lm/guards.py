"""When speech has run away: more frames than the text can need, one held code, or a loop. Pure.

The published models never end about one utterance in two hundred (model document, section 11): the honest answer is a
frame budget tied to the text, and an earlier end when the sound plainly stands still or turns in circles.
"""

from __future__ import annotations

from dataclasses import dataclass

LONGEST_PERIOD = 32


@dataclass(frozen=True)
class Limits:
    """In frames. The budget is the public advice of 75 + 6 per token (6 s and 0.5 s per token); the other two are
    generous: no speech holds one semantic code for 6 s, or repeats a stretch of up to 2.5 s exactly for 12 s."""

    budget_base: int = 75
    budget_per_token: int = 6
    held_code: int = 75
    loop: int = 150


class RunawayGuard:
    """Watches the code 0 of every frame; `frame` says whether the utterance should end here."""

    def __init__(self, limits: Limits | None = None) -> None:
        self._limits = limits or Limits()
        self._recent: list[int] = []
        self._repeats = [0] * (LONGEST_PERIOD + 1)

    def frame(self, code: int, frame_count: int, text_token_count: int, text_finished: bool) -> bool:
        """`frame_count` includes this frame. Nothing is judged while text is still being fed: it bounds the frames
        itself.
        """
        self._remember(code)
        if not text_finished:
            return False
        limits = self._limits
        if frame_count >= limits.budget_base + limits.budget_per_token * text_token_count:
            return True
        return self._repeats[1] >= limits.held_code or max(self._repeats) >= limits.loop

    def _remember(self, code: int) -> None:
        """`_repeats[p]`: for how many frames in a row code 0 has equalled the one p frames earlier."""
        recent, repeats = self._recent, self._repeats
        for period in range(1, min(len(recent), LONGEST_PERIOD) + 1):
            repeats[period] = repeats[period] + 1 if recent[-period] == code else 0
        recent.append(code)
        if len(recent) > LONGEST_PERIOD:
            del recent[0]
