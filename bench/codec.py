"""What a streamed frame costs: ours with explicit state against the reference's windows, in one run on one machine.

`python -m bench.codec --reference-python PYTHON` (the environment of `tools/reference/build.py`; without it only ours).
Both decode the same codes at the real dimensions with random weights, alternating call by call: ours advances a warm
state by the packet's frames, the reference decodes 25 frames of context and the packet, and drops the context, as its
streaming servers do. Times are of whole calls, per new frame; ours includes handing float32 samples to the host. Each
seed gives other codes. Beside the times stand the machine's measured rates and the floor they give a frame.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bench.report import ROOT, Report
from bench.roofline import Machine, counted_products, measure_machine
from cli.checkpoint import official
from cli.checkpoint.random import write_random
from services.codec.runner import Runner
from services.codec.schedule import Row

CONTEXT_FRAMES = 25
CODEBOOKS = 16
WARM_UP = 3


def main(argv: Sequence[str] | None = None) -> int:
    arguments = _arguments(argv)
    os.environ["OMP_NUM_THREADS"] = str(arguments.threads)  # for the reference's process
    torch.set_num_threads(arguments.threads)
    with tempfile.TemporaryDirectory() as scratch:
        model = arguments.model or write_real_codec(Path(scratch))
        configuration = {k: str(v) for k, v in vars(arguments).items()} | {"context_frames": CONTEXT_FRAMES}
        report = Report("codec", configuration | {"warm_up": WARM_UP, "weights": "random, real dimensions, seed 0"})
        machine = measure_machine(arguments.threads)
        report.value("read_bytes_per_s", machine.bytes_per_s)
        report.value("operations_per_s", machine.operations_per_s)
        for dtype in arguments.dtypes.split(","):
            measure(report, model, dtype, arguments, machine)
    print(report.table())
    print(report.write())
    return 0


def write_real_codec(directory: Path) -> Path:
    """The published codec's dimensions beside a tiny talker."""
    config = official.codec_config("0.6B")
    sections = {name: config[name] for name in ("decoder_config", "encoder_config")}
    size = sections["decoder_config"]["codebook_size"]
    return write_random(directory, like="tiny", type="base", seed=0, codebook_size=size, **sections)


def measure(report: Report, model: Path, dtype: str, arguments: argparse.Namespace, machine: Machine) -> None:
    streams = [int(n) for n in arguments.streams.split(",")]
    runner = Runner(model, device="cpu", dtype=dtype, row_count=max(streams), max_batch=max(streams), max_frames=8)
    runner.warm()
    with reference(arguments.reference_python, model) as window:
        for frames in (int(n) for n in arguments.frames.split(",")):
            for count in streams:
                if not runner.buckets.admits(count, frames):
                    continue  # a step of the engine never holds that much on this device
                ours, theirs = alternate(runner, window if count == 1 else None, dtype, frames, count, arguments)
                where: dict[str, Any] = {"dtype": dtype, "frames_per_call": frames, "streams": count}
                mine = report.add("frame_s", ours, side="ours", **where)
                if theirs:
                    other = report.add("frame_s", theirs, side="reference", **where)
                    report.value("reference_over_ours", round(other["p50"] / mine["p50"], 2), **where)
                    pairs = zip(theirs, ours, strict=True)
                    report.add("reference_over_ours_by_call", [b / a for b, a in pairs], **where)
                floor(report, runner, machine, mine["p50"], where)


def floor(report: Report, runner: Runner, machine: Machine, p50_s: float, where: dict[str, Any]) -> None:
    """What one frame reads and computes in the decoder's products, and what that takes at least."""
    streams, frames = where["streams"], where["frames_per_call"]
    with counted_products() as products:
        runner.decode([Row(slot, True, [[0] * CODEBOOKS] * frames) for slot in range(streams)])
    bytes_read, operations = (sum(part) / frames / streams for part in zip(*products, strict=True))
    floor_s = machine.floor_s(bytes_read, operations)
    report.value("frame_bytes", bytes_read, **where)
    report.value("frame_operations", operations, **where)
    report.value("frame_floor_s", floor_s, **where)
    report.value("frame_over_floor", p50_s / floor_s, **where)


def alternate(
    runner: Runner, window: Any, dtype: str, frames: int, streams: int, arguments: argparse.Namespace
) -> tuple[list[float], list[float]]:
    """Seconds per new frame of each call, ours and theirs, one after the other."""
    generators = [np.random.default_rng(seed) for seed in range(arguments.seeds)]
    size = runner.config.decoder.codebook_size
    ours: list[float] = []
    theirs: list[float] = []
    for turn in range(arguments.rounds + WARM_UP):
        codes = generators[turn % len(generators)].integers(0, size, (CONTEXT_FRAMES + frames, CODEBOOKS)).tolist()
        rows = [Row(slot, turn == 0, codes[CONTEXT_FRAMES:]) for slot in range(streams)]
        began = time.perf_counter()
        runner.decode(rows)
        mine = time.perf_counter() - began
        other = window({"dtype": dtype, "codes": codes, "drop": CONTEXT_FRAMES}) if window else None
        if turn >= WARM_UP:
            ours.append(mine / frames / streams)
            theirs += [other / frames] if other is not None else []
    return ours, theirs


@contextmanager
def reference(python: Path | None, model: Path) -> Iterator[Any]:
    """A function that has one window decoded by the reference and returns its seconds; None without an environment."""
    if python is None:
        yield None
        return
    command = [str(python), "-m", "tools.reference.codec", "--serve", str(model)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        pipes = (child.stdin, child.stdout)

        def window(request: dict[str, Any]) -> float:
            pipes[0].write(json.dumps(request) + "\n")
            pipes[0].flush()
            while not (line := pipes[1].readline()).startswith("{"):  # the package greets on stdout
                if not line:
                    raise RuntimeError("the reference's process ended")
            return float(json.loads(line)["seconds"])

        yield window
        child.stdin.close()


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="streamed codec frames: ours against the reference")
    parser.add_argument("--model", type=Path, help="a checkpoint; default: random weights at the real dimensions")
    parser.add_argument("--reference-python", type=Path, help="Python of the reference environment")
    parser.add_argument("--dtypes", default="float32,bfloat16")
    parser.add_argument("--frames", default="1,4", help="frames per call")
    parser.add_argument("--streams", default="1,4", help="streams per step; the reference takes part in 1 only")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--seeds", type=int, default=3, help="of the codes, taken in turn")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main())
