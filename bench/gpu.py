"""Both speech engines on one GPU, the whole suite in one command: parity, steps, first packets, open loop, streams.

`voicemesh bench gpu`, or `python -m bench.gpu` from the source tree on a machine that has only Python, torch, Triton,
transformers and numpy: no package of ours is installed, nothing but this tree is needed (docs/gpu.md). Checkpoints are
random weights at the published dimensions, written at the start. Every section has a share of `--budget-s` and shrinks
its n rather than overrun; the report is written anew after each, so that a run that is cut off leaves what it had.
`--only` chooses sections; `--tiny` takes tiny dimensions, so that the command can be tried on any machine.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import tempfile
import time
import traceback
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench.on_gpu.budget import Budget
from bench.on_gpu.scale import FULL, TINY
from bench.on_gpu.targets import verdicts
from bench.report import RESULTS, Report, table


@dataclass(frozen=True)
class Section:
    """`share` of the budget, against the shares of the others that are still to come."""

    name: str
    share: float
    run: Callable[..., Awaitable[None]]


def sections() -> tuple[Section, ...]:
    """In the order in which they run: each size's engines are opened once."""
    from bench.on_gpu import engines, parity, steps

    return (
        Section("machine", 1, steps.machine),
        Section("parity", 9, parity.parity),
        Section("codec", 7, steps.codec),
        Section("steps", 12, steps.steps),
        Section("bursts", 6, partial(engines.bursts, size="0.6B")),
        Section("streams-0.6B", 6, partial(engines.streams, size="0.6B")),
        Section("stop", 1, engines.stop),
        Section("alone-0.6B", 1, partial(engines.alone, size="0.6B")),
        Section("profile-0.6B", 1, partial(engines.profile, size="0.6B")),
        Section("open-loop", 10, engines.open_loop),
        Section("alone-1.7B", 1, partial(engines.alone, size="1.7B")),
        Section("streams-1.7B", 6, partial(engines.streams, size="1.7B")),
        Section("profile-1.7B", 1, partial(engines.profile, size="1.7B")),
        Section("talker-parity", 3, steps.talker_parity),
        Section("drift", 4, steps.drift),
        Section("deterministic", 4, steps.deterministic),
    )


async def measure(report: Report, arguments: argparse.Namespace, scratch: Path) -> int:
    """Every section that was asked for; how many failed."""
    from bench.on_gpu.suite import Suite

    suite = Suite(report, TINY if arguments.tiny else FULL, arguments.device, scratch)
    budget, failed = Budget(arguments.budget_s - arguments.used_s), 0
    wanted = [section for section in sections() if not arguments.only or section.name in arguments.only]
    for place, section in enumerate(wanted):
        part = budget.share(section.share, sum(each.share for each in wanted[place:]))
        began_s = time.perf_counter()
        first = len(report.figures)
        try:
            if budget.spent:
                raise TimeoutError("the budget was used up before it began")
            await section.run(suite, part)
        except Exception as error:  # the top of a section: told in the report, the others go on
            traceback.print_exc(file=sys.stderr)
            report.figures.append(
                {"name": "failed", "section": section.name, "why": f"{type(error).__name__}: {error}"}
            )
            failed += 1
        for figure in report.figures[first:]:
            figure.setdefault("section", section.name)
        report.value("section_s", time.perf_counter() - began_s, section=section.name)
        report.write(arguments.out)
        print(f"{section.name}: {time.perf_counter() - began_s:.1f} s, {budget.left_s:.0f} s left", file=sys.stderr)
    await suite.close_pair()
    report.figures += verdicts(report.figures)
    return failed


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print the table, write the report; 1 when a section failed."""
    arguments = _arguments(argv)
    arguments.used_s = time.clock_gettime(time.CLOCK_BOOTTIME) - _process_began_s()
    import torch

    if arguments.device.startswith("cuda") and not torch.cuda.is_available():
        print("bench gpu: torch finds no CUDA device; --device cpu --tiny tries the command", file=sys.stderr)
        return 1
    if arguments.device == "cpu":
        torch.set_num_threads(1)  # two engines share this process, and what is tiny gains nothing from more
    configuration = {k: v for k, v in vars(arguments).items() if k not in ("out", "json", "used_s")}
    report = Report("gpu", configuration | {"weights": "random, tiny" if arguments.tiny else "random, published sizes"})
    with tempfile.TemporaryDirectory(dir=os.environ.get("TMPDIR")) as scratch:
        failed = asyncio.run(measure(report, arguments, Path(scratch)))
    print(json.dumps(report.document()) if arguments.json else _tables(report))
    print(report.write(arguments.out), file=sys.stderr)
    return int(failed > 0)


def _tables(report: Report) -> str:
    """One table a section: a figure's columns depend on what it is of."""
    names = dict.fromkeys(figure["section"] for figure in report.figures)
    parts = [(name, [figure for figure in report.figures if figure["section"] == name]) for name in names]
    return "\n\n".join(f"{name}\n{table(figures)}" for name, figures in parts)


def _process_began_s() -> float:
    """On the clock of the machine's boot: importing torch is part of what the budget pays."""
    ticks = int(Path("/proc/self/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[19])
    return ticks / os.sysconf("SC_CLK_TCK")


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="voicemesh bench gpu", description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--device", default="cuda", help="cuda, cuda:N or cpu")
    parser.add_argument("--tiny", action="store_true", help="tiny dimensions and loads, to try the command")
    parser.add_argument("--budget-s", type=float, default=480.0, help="for everything")
    parser.add_argument("--only", type=_names, default=[], metavar="SECTION,…", help="these sections alone")
    parser.add_argument("--out", type=Path, default=RESULTS, help="directory of the report")
    parser.add_argument("--json", action="store_true", help="print the report instead of tables")
    return parser.parse_args(argv)


def _names(text: str) -> list[str]:
    return [part for part in text.split(",") if part]


if __name__ == "__main__":
    sys.exit(main())
