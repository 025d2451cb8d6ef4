"""The report of a benchmark: what was measured, on which machine, at which commit, and how. Standard library only.

    report = Report("hop", configuration={"streams": 200, "warm_up": 100})
    report.add("round_trip_s", samples, streams=200)
    path = report.write()

A figure keeps count, mean, extremes and p50, p95, p99 of its samples, in the unit that its name ends with; single
values (a ratio, a byte count) go in with `value`. `bench/compare.py` prints two reports side by side.
"""

from __future__ import annotations

import json
import math
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "bench" / "results"
Value = str | int | float | bool | None


class Report:
    """One run of one benchmark. Facts of the machine are taken when it is made, so make it before the load."""

    def __init__(self, name: str, configuration: dict[str, Any]) -> None:
        self.name = name
        self.configuration = configuration
        self.started = datetime.now(UTC)
        self.machine = machine()
        self.commit = commit()
        self.figures: list[dict[str, Any]] = []

    def add(self, name: str, samples: Iterable[float], **where: Value) -> dict[str, float]:
        """A figure from samples; `where` tells it from others of its name (streams=200). Returns its summary."""
        summary = summarise(samples)
        self.figures.append({"name": name, **where, **summary})
        return summary

    def value(self, name: str, value: float, **where: Value) -> None:
        """A figure that is one number."""
        self.figures.append({"name": name, **where, "value": value})

    def document(self) -> dict[str, Any]:
        """All of it, as it is written."""
        return {
            "name": self.name,
            "time": self.started.isoformat(timespec="seconds"),
            "duration_s": round((datetime.now(UTC) - self.started).total_seconds(), 3),
            "commit": self.commit,
            "command": [argument.removeprefix(f"{ROOT}/") for argument in sys.argv],
            "machine": self.machine,
            "configuration": self.configuration,
            "figures": self.figures,
        }

    def write(self, directory: Path = RESULTS) -> Path:
        """Write `<name>-<time>-<commit>.json` and return its path."""
        directory.mkdir(parents=True, exist_ok=True)
        path = directory / f"{self.name}-{self.started:%Y%m%d-%H%M%S}-{self.commit[:9]}.json"
        path.write_text(json.dumps(self.document(), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        return path

    def table(self) -> str:
        """The figures as text, for a person."""
        return table(self.figures)


def summarise(samples: Iterable[float]) -> dict[str, float]:
    """n, mean, min, p50, p95, p99, max. ValueError without samples: an empty figure is a mistake, not a zero."""
    ordered = sorted(samples)
    if not ordered:
        raise ValueError("no samples")
    summary = {f"p{share}": percentile(ordered, share / 100) for share in (50, 95, 99)}
    return {
        "n": len(ordered),
        "mean": math.fsum(ordered) / len(ordered),
        "min": ordered[0],
        **summary,
        "max": ordered[-1],
    }


def percentile(ordered: Sequence[float], share: float) -> float:
    """The smallest sample that at least `share` of the samples do not exceed (nearest rank, no interpolation)."""
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def table(figures: Sequence[dict[str, Any]]) -> str:
    """Rows of figures under the columns that any of them has."""
    columns: list[str] = []
    for figure in figures:
        columns += [key for key in figure if key not in columns]
    rows = [columns, *([_shown(figure.get(column)) for column in columns] for figure in figures)]
    widths = [max(len(row[index]) for row in rows) for index in range(len(columns))]
    return "\n".join("  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)


def machine() -> dict[str, Any]:
    """Processor, memory, load, versions, and the GPU where torch is loaded and sees one."""
    facts: dict[str, Any] = {
        "cpu": _cpu_model(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "load_1min": round(os.getloadavg()[0], 2),
        "platform": platform.platform(),
        "python": platform.python_version(),
    }
    torch = sys.modules.get("torch")
    if torch is not None:
        facts["torch"] = torch.__version__
        facts["torch_threads"] = torch.get_num_threads()
        if torch.cuda.is_available():
            facts["gpu"] = torch.cuda.get_device_name()
            facts["cuda"] = torch.version.cuda
            facts["driver"] = _said("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader") or "unknown"
    return facts


def commit() -> str:
    """The commit of this tree, with `+` when it is not exactly that; VOICEMESH_COMMIT where there is no git."""
    revision = _said("git", "-C", str(ROOT), "rev-parse", "HEAD")
    if not revision:
        return os.environ.get("VOICEMESH_COMMIT", "unknown")
    changed = _said("git", "-C", str(ROOT), "status", "--porcelain", "--untracked-files=no")
    return revision + ("+" if changed else "")


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or "unknown"


def _said(*command: str) -> str:
    if shutil.which(command[0]) is None:
        return ""
    done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    return done.stdout.strip() if done.returncode == 0 else ""


def _shown(value: Value) -> str:
    if isinstance(value, float):
        return f"{value:.4g}" if abs(value) < 1e4 else f"{value:.0f}"
    return "" if value is None else str(value)
