"""Where the time of the last turns went: kept for `/v1/latency`, told by every conversation whatever carries it.

Holds times and reasons, never text or sound. Pure: Unix seconds are arguments.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from common.stream import FinishReason
from common.telemetry import Milestone
from services.gateway.realtime.stages import STAGES, milliseconds, stages_s
from services.gateway.session.ports import AnswerEnded, FalseInterruption, SessionEvent, TurnMeasured

KEPT_TURNS = 200
QUANTILES = {"p50": 0.5, "p90": 0.9, "p95": 0.95, "p99": 0.99}
SPANS = {
    "first_packet": (Milestone.ENDPOINT, Milestone.PLAYOUT_FIRST),
    "first_audio": (Milestone.USER_SPEECH_END, Milestone.PLAYOUT_FIRST),
    "heard": (Milestone.USER_SPEECH_END, Milestone.CLIENT_FIRST_AUDIBLE),
}
"""Sums that people ask for: sure of the end → first packet; end of speech → first packet; end of speech → heard."""


@dataclass
class TurnRecord:
    """One turn, as far as it has come."""

    session_id: str
    turn: int
    transport: str
    at_s: float
    milestones: Mapping[Milestone, float] = field(default_factory=dict)
    ended: FinishReason | None = None
    fault: str | None = None
    was_held: bool = False

    def shown(self) -> dict[str, Any]:
        """As JSON."""
        stages = stages_s(self.milestones)
        return {
            "id": f"{self.session_id}/{self.turn}",
            "session_id": self.session_id,
            "turn": self.turn,
            "transport": self.transport,
            "time": round(self.at_s, 3),
            "stages_ms": milliseconds(stages),
            "milestones_ms": milliseconds({str(name): at_s for name, at_s in self.milestones.items()}),
            "total_ms": round(1000 * sum(stages.values()), 1),
            "ended": None if self.ended is None else self.ended.name,
            "error": self.fault,
            "held": self.was_held,
        }


class LatencyBoard:
    """The last turns of all sessions. `version` changes with every word that changes something."""

    def __init__(self, kept_turns: int = KEPT_TURNS) -> None:
        self._kept_turns = kept_turns
        self._turns: OrderedDict[tuple[str, int], TurnRecord] = OrderedDict()
        self.version = 0

    def tell(self, session_id: str, transport: str, event: SessionEvent, now_s: float) -> None:
        """What a session told its client."""
        match event:
            case TurnMeasured():
                self._record(session_id, event.turn, transport, now_s).milestones = dict(event.milestones)
            case AnswerEnded():
                record = self._record(session_id, event.turn, transport, now_s)
                record.ended, record.fault = event.reason, event.error.reason if event.error else None
            case FalseInterruption():
                latest = next((key for key in reversed(self._turns) if key[0] == session_id), None)
                if latest is not None:
                    self._turns[latest].was_held = True
            case _:
                return
        self.version += 1

    def turns(self, session_id: str | None = None) -> list[dict[str, Any]]:
        """Oldest first; of one session or of all."""
        return [
            record.shown() for record in self._turns.values() if session_id is None or record.session_id == session_id
        ]

    def summary(self) -> dict[str, Any]:
        """Quantiles of every stage and of the sums, over the turns that are kept."""
        measured = [record.milestones for record in self._turns.values() if record.milestones]
        by_stage: dict[str, list[float]] = {stage: [] for stage in STAGES.values()}
        for milestones in measured:
            for stage, seconds in stages_s(milestones).items():
                by_stage[stage].append(seconds)
        spans = {
            name: [one[last] - one[first] for one in measured if first in one and last in one]
            for name, (first, last) in SPANS.items()
        }
        return {
            "stages": {stage: quantiles_ms(values) for stage, values in by_stage.items() if values},
            "sums": {name: quantiles_ms(values) for name, values in spans.items() if values},
            "turn_count": len(measured),
        }

    def _record(self, session_id: str, turn: int, transport: str, now_s: float) -> TurnRecord:
        key = (session_id, turn)
        if key not in self._turns:
            self._turns[key] = TurnRecord(session_id, turn, transport, now_s)
            while len(self._turns) > self._kept_turns:
                self._turns.popitem(last=False)
        return self._turns[key]


def quantiles_ms(values: Iterable[float]) -> dict[str, float | int]:
    """p50, p90, p95, p99 in ms by nearest rank, and how many values there are."""
    ordered = sorted(values)
    found: dict[str, float | int] = {name: round(1000 * _rank(ordered, share), 1) for name, share in QUANTILES.items()}
    return found | {"n": len(ordered)}


def _rank(ordered: Sequence[float], share: float) -> float:
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]
