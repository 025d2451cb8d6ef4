"""What the figures ought to be on an H200, and whether they are. Pure: figures in, figures out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Target:
    """`measure` of the figure `name` where all of `where` holds, at most `limit`; at least it when `least`."""

    name: str
    measure: str
    limit: float
    where: Mapping[str, Any] = field(default_factory=dict)
    least: bool = False

    def met_by(self, value: float) -> bool:
        return value >= self.limit if self.least else value <= self.limit


TARGETS = (
    *(
        Target("first_packet_s", "p95", limit, {"load": "burst", "at_once": n, "size": "0.6B"})
        for n, limit in ((1, 0.025), (3, 0.030), (6, 0.040))
    ),
    Target("step_s", "p50", 0.006, {"load": "alone", "size": "1.7B"}),
    *(
        Target("first_audible_s", "p95", limit, {"load": "poisson", "per_s": rate, "size": "1.7B"})
        for rate, limit in ((1.0, 0.022), (10.0, 0.030), (20.0, 0.050))
    ),
    *(
        Target("underruns", "value", 0, {"load": "poisson", "per_s": rate, "size": "1.7B"})
        for rate in (1.0, 10.0, 20.0)
    ),
    *(
        Target("streams_without_underrun", "value", 160, {"streams": 160, "size": size}, least=True)
        for size in ("0.6B", "1.7B")
    ),
    Target("stop_s", "p95", 0.080, {"stage": "tts_lm"}),
    Target("stop_s", "p95", 0.080, {"stage": "codec"}),
)
"""A frame is 80 ms of sound; at the least a stop waits for the step that runs."""


def verdicts(figures: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """A row for every target that was measured."""
    rows = []
    for target in TARGETS:
        for figure in figures:
            if figure["name"] != target.name or target.where.items() - figure.items():
                continue
            value = figure[target.measure]
            bound = "at_least" if target.least else "at_most"
            of = {"of": f"{target.name} {target.measure}", **target.where}
            rows.append(
                {"name": "target", "section": "targets", **of, bound: target.limit, "value": value}
                | {"met": target.met_by(value)}
            )
    return rows
