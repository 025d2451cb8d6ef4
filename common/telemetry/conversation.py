"""The measures of conversations: sessions, interruptions, and what playout suffered.

One object per gateway. What belongs to one turn's way through the stages is `Turn`'s; what every stage has (slots,
queue, underruns) is `StageObserver`'s. Numbers and short words from fixed sets only.
"""

from __future__ import annotations

from enum import StrEnum

from opentelemetry.metrics import Histogram, Meter

from common.telemetry import names
from common.telemetry.names import Attribute


class Verdict(StrEnum):
    """What came of a person's voice during an answer."""

    INTERRUPTED = "interrupted"
    FALSE_ALARM = "false_alarm"
    BACKCHANNEL = "backchannel"


class Speculation(StrEnum):
    """What came of an answer begun before the turn was sure to be over."""

    KEPT = "kept"
    DROPPED = "dropped"


class ConversationObserver:
    """Any thread may tell; every method returns at once."""

    def __init__(self, meter: Meter) -> None:
        self._sessions = meter.create_gauge(names.SESSION_ACTIVE, "{session}", "Conversations held now")
        self._session_limit = meter.create_gauge(names.SESSION_LIMIT, "{session}", "Conversations there is room for")
        self._turns = meter.create_counter(names.TURN_ENDED, "{turn}", "Turns ended, by reason")
        self._interruptions = meter.create_counter(
            names.TURN_INTERRUPTIONS, "{interruption}", "Voices during an answer, by what came of them"
        )
        self._silence = _seconds(meter, names.TURN_INTERRUPTION_SILENCE, "From a person's voice to our silence")
        self._speculations = meter.create_counter(
            names.TURN_SPECULATIONS, "{answer}", "Answers begun before the turn was over, by what came of them"
        )
        self._late = _seconds(meter, names.PACER_LATENESS, "A block went out after its time by so much")
        self._skipped = meter.create_counter(names.PACER_SKIPPED, "{block}", "Blocks not sent because it was too late")
        self._pause = meter.create_counter(names.PLAYOUT_PAUSE, "s", "Silence heard in mid-answer")
        self._blocked = _seconds(meter, names.LOOP_BLOCKED, "The event loop ran late by so much")

        for counter in (self._skipped, self._pause):
            counter.add(0)  # there from the start: a rate over a counter's first sight of the world misses it

    def sessions(self, active: int, limit: int) -> None:
        """Conversations held and conversations there is room for, told on every change."""
        self._sessions.set(active)
        self._session_limit.set(limit)

    def turn_ended(self, reason: str) -> None:
        """A turn's answer ended; `reason` is a name of `FinishReason`."""
        self._turns.add(1, {Attribute.FINISH_REASON.value: reason})

    def voice_during_answer(self, verdict: Verdict, silence_s: float | None = None) -> None:
        """A person spoke during an answer; `silence_s` from the first sample of the voice to the last of ours."""
        self._interruptions.add(1, {Attribute.VERDICT.value: verdict.value})
        if silence_s is not None:
            self._silence.record(silence_s)

    def speculated(self, outcome: Speculation) -> None:
        """An answer begun early was kept or dropped."""
        self._speculations.add(1, {Attribute.OUTCOME.value: outcome.value})

    def block_sent(self, lateness_s: float) -> None:
        """The pacer handed out a block of 20 ms."""
        self._late.record(lateness_s)

    def blocks_skipped(self, count: int) -> None:
        """The pacer was so late that blocks were left out."""
        self._skipped.add(count)

    def paused(self, pause_s: float) -> None:
        """An answer fell silent in its middle for so long."""
        self._pause.add(pause_s)

    def loop_blocked(self, lateness_s: float) -> None:
        """A timer of the event loop fired so much too late."""
        self._blocked.record(lateness_s)


def _seconds(meter: Meter, name: str, description: str) -> Histogram:
    return meter.create_histogram(name, "s", description, explicit_bucket_boundaries_advisory=names.LATENCY_EDGES_S)
