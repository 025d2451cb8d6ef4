"""What a frame of speech costs: our step against the reference's, in one run on one machine.

`python -m bench.tts_lm --reference-python PYTHON` (the environment of `tools/reference/build.py`; without it only
ours). All sides speak the same text from the same checkpoint with its own sampling, taking turns utterance by
utterance, each turn another seed, each side in a process of its own. A frame is sampling, code predictor and one talker
step; the prompt is not in it. Beside the times stand the machine's measured rates and the floor they give a frame, the
steps of 2 and 4 utterances at once, and what bfloat16 and int8 do to the logits. int8 is compared with the reference's
bfloat16. `--flat` instead measures ours over one long utterance: cost per frame early and late.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bench.logits import compare_logits
from bench.report import ROOT, Report
from bench.roofline import Frame, Machine, measure_machine

BATCHES = (1, 2, 4)
GROUPS = {"float32": ("float32",), "bfloat16": ("bfloat16", "int8")}
"""The reference's dtype → ours that are compared with it."""


@dataclass(frozen=True)
class Ours:
    """One of our ways to run the model."""

    dtype: str
    kernels: str


class Side:
    """One process that answers each line with seconds per frame. `first` is what it said before it was ready."""

    def __init__(self, name: str, python: str, module: str, arguments: list[str], threads: int) -> None:
        self.name = name
        environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": str(threads), "HF_HUB_OFFLINE": "1"}
        command = [python, "-m", module, *arguments]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT, env=environment
        )
        self.first = ""
        while (line := self._line()) != "ready":
            self.first = line

    def _line(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(f"the {self.name} process ended: {self._process.wait()}")
        return line.strip()

    def turn(self, seed: int, batch: int = 1) -> list[float]:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{seed} {batch}\n")
        self._process.stdin.flush()
        while not (line := self._line()).startswith("["):
            pass
        return [float(value) for value in json.loads(line)]

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


def main(argv: Sequence[str] | None = None) -> int:
    arguments = _arguments(argv)
    with tempfile.TemporaryDirectory() as scratch:
        model = str(arguments.model or _write_model(Path(scratch), arguments.like))
        configuration = {k: str(v) for k, v in vars(arguments).items()}
        weights = str(arguments.model or f"random, {arguments.like} dimensions")
        report = Report("tts_lm", configuration | {"weights": weights})
        machine = measure_machine(arguments.threads)
        report.value("read_bytes_per_s", machine.bytes_per_s)
        report.value("operations_per_s", machine.operations_per_s)
        if arguments.flat:
            for dtype in arguments.dtypes.split(","):
                measure_flat(report, model, dtype, arguments)
        else:
            for theirs, ours in GROUPS.items():
                dtypes = [dtype for dtype in ours if dtype in arguments.dtypes.split(",")]
                sides = [Ours(dtype, kernels) for kernels in arguments.kernels.split(",") for dtype in dtypes]
                if sides:
                    measure(report, model, theirs, sides, arguments, machine, Path(scratch))
            measure_logits(report, Path(scratch))
    print(report.table())
    print(report.write())
    return 0


def our_side(model: str, ours: Ours, arguments: argparse.Namespace, logits: str = "-") -> Side:
    threads = arguments.threads
    given = [model, ours.dtype, str(arguments.frames), ours.kernels, str(threads), logits]
    return Side(f"{ours.kernels} {ours.dtype}", sys.executable, "bench.talker_side", given, threads)


def measure(
    report: Report,
    model: str,
    theirs: str,
    wanted: list[Ours],
    arguments: argparse.Namespace,
    machine: Machine,
    scratch: Path,
) -> None:
    """Utterances in turn; a ratio is of the medians of one turn, so that other load falls on both."""
    sides = {
        ours: our_side(model, ours, arguments, str(scratch / f"{ours.kernels}-{ours.dtype}.npz")) for ours in wanted
    }
    reference = None
    if arguments.reference_python:
        given = [model, theirs, str(arguments.frames)]
        reference = Side(
            "reference", str(arguments.reference_python), "tools.reference.time_talker", given, arguments.threads
        )
    times: dict[Ours, list[list[float]]] = {ours: [] for ours in sides}
    other: list[list[float]] = []
    for seed in range(arguments.rounds + 1):  # the first turn warms up
        for ours, side in sides.items():
            times[ours].append(side.turn(seed))
        if reference:
            other.append(reference.turn(seed))
    if reference:
        reference.close()
        report.add("frame_s", flat(other[1:]), side="reference", dtype=theirs, batch=1)
    for ours, side in sides.items():
        where = {"side": "ours", "kernels": ours.kernels, "dtype": ours.dtype}
        spoken = report.add("frame_s", flat(times[ours][1:]), **where, batch=1)
        if reference:
            pairs = zip(other[1:], times[ours][1:], strict=True)
            ratios = [statistics.median(b) / statistics.median(a) for b, a in pairs]
            report.add("reference_over_ours", ratios, **where, against=theirs)
        frame = Frame(**json.loads(side.first))
        floor_s = machine.floor_s(frame.byte_count, frame.operation_count)
        report.value("frame_bytes", frame.byte_count, **where)
        report.value("frame_operations", frame.operation_count, **where)
        report.value("frame_floor_s", floor_s, **where)
        report.value("frame_over_floor", spoken["p50"] / floor_s, **where)
        measure_batches(report, side, where, arguments.rounds)
        side.close()


def measure_batches(report: Report, side: Side, where: dict[str, Any], rounds: int) -> None:
    """Steps of several utterances at once, each turn beside a step of one."""
    times: dict[int, list[list[float]]] = {batch: [] for batch in BATCHES}
    for seed in range(rounds):
        for batch in BATCHES:
            times[batch].append(side.turn(seed, batch))
    for batch in BATCHES[1:]:
        report.add("step_s", flat(times[batch]), **where, batch=batch)
        pairs = zip(times[batch], times[1], strict=True)
        ratios = [statistics.median(a) / statistics.median(b) for a, b in pairs]
        report.add("step_over_step_of_one", ratios, **where, batch=batch)


def measure_logits(report: Report, scratch: Path) -> None:
    """Of every side against float32 (native, else torch), under teacher forcing: root mean square error over that of
    the logits about their mean, share of equal best codes, and the mean Kullback-Leibler divergence."""
    paths = {path.stem: path for path in sorted(scratch.glob("*-*.npz"))}
    exact = paths.get("native-float32") or paths.get("torch-float32")
    for name, path in paths.items():
        if exact is None or path == exact:
            continue
        kernels, dtype = name.split("-")
        with np.load(exact) as right, np.load(path) as found:
            for part in ("talker", "predictor"):
                error, agreed, divergence = compare_logits(right[part], found[part])
                where = {"kernels": kernels, "dtype": dtype, "part": part}
                report.value("logit_error", error, **where)
                report.value("best_code_agreement", agreed, **where)
                report.value("divergence_nats", divergence, **where)


def measure_flat(report: Report, model: str, dtype: str, arguments: argparse.Namespace) -> None:
    """One utterance of `--frames` frames; its second and its last tenth (the attention's own growth is part of the
    cost).
    """
    for kernels in arguments.kernels.split(","):
        side = our_side(model, Ours(dtype, kernels), arguments)
        times = side.turn(1)
        side.close()
        tenth = len(times) // 10
        report.add("frame_s", times[tenth : 2 * tenth], part="second tenth", dtype=dtype, kernels=kernels)
        report.add("frame_s", times[-tenth:], part="last tenth", dtype=dtype, kernels=kernels)


def flat(rounds: list[list[float]]) -> list[float]:
    return [value for times in rounds for value in times]


def _write_model(directory: Path, like: str) -> Path:
    from cli.checkpoint.random import write_random

    return write_random(directory / "model", like=like, type="custom_voice", seed=0)  # type: ignore[arg-type]


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench.tts_lm", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--reference-python", type=Path, help="Python of the reference environment")
    parser.add_argument("--model", type=Path, help="a checkpoint; absent: a random one")
    parser.add_argument("--like", default="0.6B", choices=["tiny", "0.6B", "1.7B"], help="dimensions of the random one")
    parser.add_argument("--dtypes", default="float32,bfloat16,int8")
    parser.add_argument("--kernels", default="native,torch", help="of ours: native, torch or both")
    parser.add_argument("--rounds", type=int, default=4, help="utterances per side and dtype, each with its own seed")
    parser.add_argument("--frames", type=int, default=10, help="frames per utterance")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--flat", action="store_true", help="ours alone, one long utterance")
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main())
