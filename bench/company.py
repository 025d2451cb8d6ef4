"""Whether company changes speech: the share of utterances whose codes differ from those spoken alone.

In the deterministic profile none may. In the fast one the last bits of one of torch's matrix products depend on how
many rows it has, so that now and then a draw falls on the other side; that share is what is measured here. Every line
is spoken alone, alone once more (which must be equal), alone with no prefix kept (equal too), and then in company of
`--at-once`. One process, the engine itself, no gRPC.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections.abc import Sequence
from itertools import islice
from typing import Any

from bench.loads import Line, lines
from bench.report import Report

Codes = list[tuple[int, ...]]


async def say(engine: Any, line: Line) -> Codes:
    """All frames of one line."""
    from services.tts_lm.types import FrameBatch, SamplingParams, UtteranceRequest

    utterance = engine.submit(UtteranceRequest(sampling=SamplingParams(seed=line.seed), max_frames=line.max_frames))
    utterance.feed(line.text)
    utterance.flush()
    return [frame async for event in utterance if isinstance(event, FrameBatch) for frame in event.codes]


async def measure(report: Report, arguments: argparse.Namespace, *, deterministic: bool) -> None:
    """One profile."""
    from services.tts_lm.load import create_engine
    from services.tts_lm.types import EngineOptions

    said = list(islice(lines(1, ends_by_itself=True, longest_frames=arguments.max_frames), arguments.lines))
    profile = "deterministic" if deterministic else "fast"

    async def speak(at_once: int, prefix_positions: int | None = None) -> list[Codes]:
        options = EngineOptions(
            arguments.model,
            slot_count=arguments.at_once,
            kernels=arguments.kernels,
            deterministic=deterministic,
            prefix_positions=prefix_positions,
        )
        engine = create_engine(options)
        await engine.start()
        spoken: list[Codes] = []
        for first in range(0, len(said), at_once):
            spoken += await asyncio.gather(*(say(engine, line) for line in said[first : first + at_once]))
        await engine.close()
        return spoken

    alone = await speak(1)
    others = {
        "alone again": await speak(1),
        "no prefix kept": await speak(1, 0),
        "in company": await speak(arguments.at_once),
    }
    for what, spoken in others.items():
        differing = sum(a != b for a, b in zip(alone, spoken, strict=True))
        report.value("share_differing", differing / len(said), profile=profile, what=what)


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print the table, write the report."""
    parser = argparse.ArgumentParser(prog="voicemesh bench company", description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--model", default="voices/mini", help="a checkpoint")
    parser.add_argument("--kernels", default="auto", choices=["auto", "native", "torch"])
    parser.add_argument("--lines", type=int, default=96)
    parser.add_argument("--at-once", type=int, default=8)
    parser.add_argument("--max-frames", type=int, default=0, help="of a line; 0: to its end")
    parser.add_argument("--json", action="store_true", help="print the report instead of a table, and write no file")
    arguments = parser.parse_args(argv)
    report = Report("company", {key: value for key, value in vars(arguments).items() if key != "json"})
    for deterministic in (True, False):
        asyncio.run(measure(report, arguments, deterministic=deterministic))
    if arguments.json:
        print(json.dumps(report.document()))
    else:
        print(report.table())
        print(report.write())
    return 0


if __name__ == "__main__":
    sys.exit(main())
