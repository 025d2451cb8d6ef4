"""How the first sound suffers when more ask at once: a line chart (SVG) from reports of `bench mesh`.

Each line is one report: the median of `first_byte_s` of its bursts, divided by the one of a burst of one, so that
machines of any speed stand on one scale; the label says the seconds. The dashed line is what the model's own report
publishes for its engine (arXiv 2601.15621, table 2, 12 Hz, 0.6B: 97, 179 and 299 ms; its GPU is not named).
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from bench.report import ROOT

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 760, 420, 56, 250, 56, 48
PUBLISHED = {1: 0.097, 3: 0.179, 6: 0.299}
COLOURS = ("#0b6e99", "#b3541e", "#5b7f2b", "#7a4f9e")


@dataclass(frozen=True)
class Line:
    """Seconds by how many ask at once."""

    name: str
    seconds: dict[int, float]
    dashed: bool = False

    def ratio(self, at_once: int) -> float:
        return self.seconds[at_once] / self.seconds[1]


def line(name: str, report: dict[str, Any], figure: str = "first_byte_s") -> Line:
    """The medians of a report's bursts of 1, 3 and 6. ValueError when one is missing."""
    kept = [f for f in report["figures"] if f["name"] == figure and f.get("prefix_cache", "on") == "on"]
    seconds = {f["at_once"]: f["p50"] for f in kept if f.get("load") == "burst" and f["at_once"] in PUBLISHED}
    if set(seconds) != set(PUBLISHED):
        raise ValueError(f"{name} has no bursts of 1, 3 and 6: only {sorted(seconds)}")
    return Line(name, seconds)


def draw(lines: Sequence[Line], title: str) -> str:
    """The chart as SVG."""
    most = max(2.0, max(each.ratio(6) for each in lines) * 1.1)

    def x(at_once: float) -> float:
        return LEFT + (at_once - 1) / 5 * (WIDTH - LEFT - RIGHT)

    def y(ratio: float) -> float:
        return HEIGHT - BOTTOM - (ratio / most) * (HEIGHT - TOP - BOTTOM)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" ',
        'font-family="sans-serif" font-size="13">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
        f'<text x="{LEFT}" y="26" font-size="16">{escape(title)}</text>',
    ]
    for step in range(int(most) + 1):
        parts.append(f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y(step):.1f}" y2="{y(step):.1f}" stroke="#ddd"/>')
        parts.append(f'<text x="{LEFT - 10}" y="{y(step) + 4:.1f}" text-anchor="end" fill="#555">{step}×</text>')
    for at_once in PUBLISHED:
        label = (
            f'<text x="{x(at_once):.1f}" y="{HEIGHT - 22}" text-anchor="middle" fill="#555">{at_once} at once</text>'
        )
        parts.append(label)
    labels = _apart([y(each.ratio(6)) for each in lines], 34)
    for each, colour, label_y in zip(lines, (*COLOURS, *COLOURS), labels, strict=False):
        points = " ".join(f"{x(n):.1f},{y(each.ratio(n)):.1f}" for n in sorted(each.seconds))
        dash = ' stroke-dasharray="6 4"' if each.dashed else ""
        parts.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2.5"{dash}/>')
        parts += [
            f'<circle cx="{x(n):.1f}" cy="{y(each.ratio(n)):.1f}" r="4" fill="{colour}"/>' for n in sorted(each.seconds)
        ]
        told = " / ".join(_shown(each.seconds[n]) for n in sorted(each.seconds))
        parts.append(f'<text x="{x(6) + 14:.1f}" y="{label_y:.1f}" fill="{colour}">{escape(each.name)}</text>')
        parts.append(f'<text x="{x(6) + 14:.1f}" y="{label_y + 15:.1f}" fill="{colour}">{told}</text>')
    return "\n".join([*parts, "</svg>"]) + "\n"


def _shown(seconds: float) -> str:
    return f"{seconds * 1000:.0f} ms" if seconds < 1 else f"{seconds:.1f} s"


def _apart(wanted: Sequence[float], distance: float) -> list[float]:
    """The same places, moved down where two would overlap."""
    placed: dict[int, float] = {}
    last = float("-inf")
    for index in sorted(range(len(wanted)), key=lambda i: wanted[i]):
        last = placed[index] = max(wanted[index], last + distance)
    return [placed[index] for index in range(len(wanted))]


def main(argv: Sequence[str] | None = None) -> int:
    """Read, draw, write."""
    parser = argparse.ArgumentParser(prog="voicemesh bench chart", description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("reports", nargs="+", metavar="NAME=REPORT", help="a line's name and its report")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "charts" / "at-once.svg")
    parser.add_argument("--title", default="First sound, when more ask at once")
    arguments = parser.parse_args(argv)
    lines = []
    for given in arguments.reports:
        name, _, path = given.rpartition("=")
        lines.append(line(name or Path(path).stem, json.loads(Path(path).read_text(encoding="utf-8"))))
    lines.append(Line("published, 0.6B, on a GPU", PUBLISHED, dashed=True))
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(draw(lines, arguments.title), encoding="utf-8")
    print(arguments.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
