"""What one conversation's actions, events and playout say to telemetry. Decides nothing; times are the loop's."""

from __future__ import annotations

from common.telemetry import Speculation, Telemetry, Verdict
from services.gateway.media import playout as media
from services.gateway.session import ports
from services.gateway.turns import actions, states

MAX_OVERLAP_S = 5.0
"""A voice that began longer ago was not what silenced an answer."""


class Measures:
    """One per conversation; all of a gateway share the instruments."""

    def __init__(self, telemetry: Telemetry) -> None:
        self._told = telemetry.conversations()
        self._stage = telemetry.observer("gateway")
        self._voice_s = self._held_s = float("-inf")

    def voice_began(self, began_s: float) -> None:
        """Somebody spoke over an answer, from then on."""
        self._voice_s = began_s

    def did(self, action: actions.Action, now_s: float) -> None:
        """The turn machine ordered that."""
        match action:
            case actions.HoldPlayout():
                self._held_s = now_s + ports.BLOCK_S
            case actions.ReleaseAnswer():
                self._told.speculated(Speculation.KEPT)
            case actions.EndAnswer(ending=states.Ending.WASTED):
                self._told.speculated(Speculation.DROPPED)
            case actions.EndAnswer(ending=states.Ending.INTERRUPTED):
                self._told.voice_during_answer(Verdict.INTERRUPTED, self._silence_s(now_s))
            case actions.FalseInterruption():
                self._told.voice_during_answer(Verdict.FALSE_ALARM)
            case actions.BackchannelHeard():
                self._told.voice_during_answer(Verdict.BACKCHANNEL)

    def told(self, event: ports.SessionEvent) -> None:
        """The person's client was told that."""
        if isinstance(event, ports.AnswerEnded):
            self._told.turn_ended(event.reason.name)

    def played(self, event: media.PlayoutEvent) -> None:
        """That became of the sound."""
        if isinstance(event, media.RanDry):
            self._stage.underrun()
        elif isinstance(event, media.WentOn):
            self._told.paused(event.pause_s)

    def _silence_s(self, now_s: float) -> float | None:
        """From the voice's first sample to our silence, which a hold brought before anybody was sure."""
        silent_s = self._held_s if self._held_s >= self._voice_s else now_s + ports.BLOCK_S
        overlap_s = silent_s - self._voice_s
        return overlap_s if overlap_s <= MAX_OVERLAP_S else None
