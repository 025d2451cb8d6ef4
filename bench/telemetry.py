"""What telling costs: one call, one utterance, one step, with telemetry off and on.

`off` is what a service pays when nobody listens, `on` with a metrics page and spans that are made but not exported. A
sample is the mean of a thousand operations; rounds of off and on alternate.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence

from bench.report import Report
from common.observer import NOBODY, Observer
from common.telemetry import Milestone, SpanName, Telemetry, TelemetrySettings

OPERATIONS = 1000
PARENT = ("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "")


def operations(telemetry: Telemetry, observer: Observer) -> dict[str, Callable[[], None]]:
    """What services do: per call, per utterance with its first milestone, per step."""

    def call() -> None:
        telemetry.rpc("/voicemesh.codec.v1.CodecService/Decode", (("user-agent", "bench"),)).end("OK")

    def utterance() -> None:
        work = telemetry.utterance(SpanName.CODEC_DECODE, PARENT, session_id="s", epoch=1)
        work.milestone(Milestone.CODEC_FIRST_PCM)
        work.trace_parent()
        work.end("COMPLETED")

    return {"call_s": call, "utterance_s": utterance, "step_s": lambda: observer.step(0.004, 3)}


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print the table, write the report."""
    parser = argparse.ArgumentParser(prog="voicemesh bench telemetry", description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--rounds", type=int, default=50, help="samples of each figure")
    parser.add_argument("--json", action="store_true", help="print the report instead of a table, and write no file")
    arguments = parser.parse_args(argv)
    on = Telemetry.open(TelemetrySettings("bench", metrics_port=0))
    told = {
        "off": operations(Telemetry.off(), NOBODY),
        "on": operations(on, on.observer("codec")),
    }
    report = Report("telemetry", {"rounds": arguments.rounds, "operations_per_sample": OPERATIONS, "warm_up": 1})
    samples: dict[tuple[str, str], list[float]] = {}
    for turn in range(arguments.rounds + 1):
        for state, named in told.items():
            for name, operation in named.items():
                taken = _mean_s(operation)
                if turn:
                    samples.setdefault((name, state), []).append(taken)
    for (name, state), times in samples.items():
        report.add(name, times, telemetry=state)
    on.close()
    if arguments.json:
        print(json.dumps(report.document()))
    else:
        print(report.table())
        print(report.write())
    return 0


def _mean_s(operation: Callable[[], None]) -> float:
    began = time.perf_counter()
    for _ in range(OPERATIONS):
        operation()
    return (time.perf_counter() - began) / OPERATIONS


if __name__ == "__main__":
    sys.exit(main())
