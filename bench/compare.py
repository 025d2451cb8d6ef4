"""Two reports of one benchmark, before and after: each figure's p50, p95 and p99, or its value, with the ratio.

python -m bench.compare bench/results/hop-A.json bench/results/hop-B.json
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.report import table

_MEASURES = ("value", "p50", "p95", "p99")
_STATISTICS = {*_MEASURES, "n", "mean", "min", "max"}


def compare(before: dict[str, Any], after: dict[str, Any]) -> list[dict[str, Any]]:
    """Rows of figure, measure, before, after and ratio (after / before), for the figures that both reports have."""
    old = {_key(figure): figure for figure in before["figures"]}
    pairs = [(old[_key(figure)], figure) for figure in after["figures"] if _key(figure) in old]
    return [
        _row(figure, measure, other[measure], figure[measure])
        for other, figure in pairs
        for measure in _MEASURES
        if measure in figure and measure in other
    ]


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="voicemesh bench compare", description="Two reports side by side.")
    parser.add_argument("before", type=Path, help="report of the run before")
    parser.add_argument("after", type=Path, help="report of the run after")
    parser.add_argument("--json", action="store_true", help="print rows as JSON")
    given = parser.parse_args(argv)
    before, after = (json.loads(path.read_text(encoding="utf-8")) for path in (given.before, given.after))
    rows = compare(before, after)
    if given.json:
        print(json.dumps(rows))
        return 0
    for label, report in (("before", before), ("after", after)):
        print(f"{label:7}{report['name']}  {report['commit'][:10]}  {report['time']}  {report['machine']['cpu']}")
    print(table(rows) if rows else "No figure stands in both reports.")
    return 0 if rows else 1


def _key(figure: dict[str, Any]) -> tuple[tuple[str, Any], ...]:
    return tuple(sorted((key, value) for key, value in figure.items() if key not in _STATISTICS))


def _row(figure: dict[str, Any], measure: str, before: float, after: float) -> dict[str, Any]:
    where = " ".join(f"{key}={value}" for key, value in figure.items() if key != "name" and key not in _STATISTICS)
    ratio = after / before if before else None
    return {
        "figure": figure["name"],
        "where": where,
        "measure": measure,
        "before": before,
        "after": after,
        "ratio": ratio,
    }


if __name__ == "__main__":
    sys.exit(main())
