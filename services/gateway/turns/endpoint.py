"""How long a silence must last before it ends the user's turn. Pure.

The turn model's opinion picks the delay; what was learned of this user's pauses is its floor: somebody who stops for
half a second in mid-sentence is not cut off after 400 ms. Only pauses between the user's own words are learned, never a
silence in which the agent made a sound (that one was an answer), and one pause moves the floor by one bounded step.
"""

from __future__ import annotations

from services.gateway.turns.settings import TurnSettings

_RELAXED = 0.95  # of the learned pause is left after a turn that was ended rightly: it must not stay high for ever


class EndpointDelay:
    """The delays of one user."""

    def __init__(self) -> None:
        self.learned_s = 0.0

    def delay_s(self, p_complete: float | None, settings: TurnSettings) -> float:
        """The silence that ends the turn, given the model's probability (None: it has not spoken)."""
        p = settings.unjudged_p if p_complete is None else p_complete
        learned_s = self.learned_s if settings.learn_pauses else 0.0
        if p >= settings.complete_p:
            delay_s = max(settings.complete_delay_s, min(learned_s, settings.confident_floor_s))
        elif p >= settings.incomplete_p:
            delay_s = max(settings.unsure_delay_s, learned_s)
        else:
            delay_s = max(settings.incomplete_delay_s, learned_s)
        return min(delay_s, settings.max_delay_s)

    def observe_pause(self, pause_s: float, settings: TurnSettings) -> None:
        """The user paused this long and went on, and the agent made no sound in between."""
        if pause_s < settings.soft_end_s:
            return
        step_s = settings.learning_rate * (pause_s - self.learned_s)
        self.learned_s += min(max(step_s, -settings.learned_step_s), settings.learned_step_s)

    def observe_end(self) -> None:
        """A turn was ended and the user agreed: the agent was heard."""
        self.learned_s *= _RELAXED
