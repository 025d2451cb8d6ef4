"""What a frame of speech costs: our step against the reference's, in one run on one machine.

`python -m bench.tts_lm --reference-python PYTHON` (the environment of `tools/reference/build.py`; without it only
ours). Both speak the same text from the same random checkpoint at the real dimensions, with the checkpoint's own
sampling, batch 1, taking turns utterance by utterance, each in a process of its own. A frame is sampling, code
predictor and one talker step; the prompt is not in it. `--flat` instead measures ours over one long utterance: cost
per frame early and late.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.report import ROOT, Report

TEXT = "The train leaves at seven, so we should be at the station before half past six, and not a minute later."
WARM_UP = 1


class Side:
    """One process that answers each line with seconds per frame."""

    def __init__(self, name: str, python: str, module: str, arguments: list[str], threads: int) -> None:
        self.name = name
        environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": str(threads), "HF_HUB_OFFLINE": "1"}
        command = [python, "-m", module, *arguments]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT, env=environment
        )
        while self._line() != "ready":
            pass

    def _line(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(f"the {self.name} process ended: {self._process.wait()}")
        return line.strip()

    def turn(self) -> list[float]:
        assert self._process.stdin is not None
        self._process.stdin.write("go\n")
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
    if arguments.worker:
        return work(arguments)
    with tempfile.TemporaryDirectory() as scratch:
        model = str(arguments.model or _write_model(Path(scratch), arguments.like))
        configuration = {k: str(v) for k, v in vars(arguments).items()} | {"batch": 1, "warm_up_utterances": WARM_UP}
        weights = str(arguments.model or f"random, {arguments.like} dimensions")
        report = Report("tts_lm", configuration | {"weights": weights})
        for dtype in arguments.dtypes.split(","):
            if arguments.flat:
                measure_flat(report, model, dtype, arguments)
            else:
                measure(report, model, dtype, arguments)
    print(report.table())
    print(report.write())
    return 0


def our_side(given: list[str], threads: int) -> Side:
    return Side("ours", sys.executable, "bench.tts_lm", ["--worker", *given, "--threads", str(threads)], threads)


def measure(report: Report, model: str, dtype: str, arguments: argparse.Namespace) -> None:
    """Utterances in turn, ours then the reference's; the ratio is of the medians of each turn."""
    given = [model, dtype, str(arguments.frames)]
    ours = our_side(given, arguments.threads)
    sides = [ours]
    if arguments.reference_python:
        python = str(arguments.reference_python)
        sides.append(Side("reference", python, "tools.reference.time_talker", given, arguments.threads))
    rounds: dict[str, list[list[float]]] = {side.name: [] for side in sides}
    for turn in range(WARM_UP + arguments.rounds):
        for side in sides:
            times = side.turn()
            rounds[side.name] += [times] if turn >= WARM_UP else []
    for side in sides:
        side.close()
        report.add("frame_s", [t for times in rounds[side.name] for t in times], side=side.name, dtype=dtype)
    if len(sides) == 2:
        # Of neighbours in time: another process's load falls on both.
        pairs = zip(rounds["reference"], rounds["ours"], strict=True)
        report.add("reference_over_ours", [statistics.median(b) / statistics.median(a) for b, a in pairs], dtype=dtype)


def measure_flat(report: Report, model: str, dtype: str, arguments: argparse.Namespace) -> None:
    """One utterance of `--frames` frames; its first and its last tenth (the attention's own growth is part of the
    cost).
    """
    ours = our_side([model, dtype, str(arguments.frames)], arguments.threads)
    times = ours.turn()
    ours.close()
    tenth = len(times) // 10
    report.add("frame_s", times[tenth : 2 * tenth], part="second tenth", dtype=dtype)
    report.add("frame_s", times[-tenth:], part="last tenth", dtype=dtype)


def work(arguments: argparse.Namespace) -> int:
    """Our side: one utterance per line of stdin, straight on the runner."""
    import torch

    from services.tts_lm.load import open_model
    from services.tts_lm.pages import PageAllocator
    from services.tts_lm.scheduler import plan_step
    from services.tts_lm.types import EngineOptions

    directory, dtype, frames = arguments.worker
    count = int(frames)
    options = EngineOptions(
        directory, dtype=dtype, slot_count=1, kv_positions=count + 128, thread_count=arguments.threads
    )
    model = open_model(options)
    torch.set_grad_enabled(False)
    print("ready", flush=True)
    for line in sys.stdin:
        del line
        allocator = PageAllocator(model.runner.page_count, model.runner.page_size)
        sequence = _sequence(model, count)
        times = []
        while sequence.frame_count < count:
            rows, prefilled = sequence.next_row_count(), sequence.prefilled
            allocator.grow(sequence.pages, sequence.position + rows)
            began = time.perf_counter()
            codes = model.runner.execute(plan_step([sequence]))[0]
            if prefilled:
                times.append(time.perf_counter() - began)
            sequence.advance(rows)
            sequence.sampled(codes)
            sequence.end = None
            sequence.take_packet(pausing=True)
        print(json.dumps(times), flush=True)
    return 0


def _sequence(model: Any, frames: int) -> Any:
    """The text by the first voice; text is still to come, so that end of speech stays masked to the last frame."""
    from common.slots import Lease
    from services.tts_lm.admission import House, admit
    from services.tts_lm.types import SamplingParams, UtteranceRequest

    request = UtteranceRequest(language="english", sampling=SamplingParams(seed=1), max_frames=frames + 1)
    admitted = admit(request, model.config, model.tokenizer, House(frames + 64, frames + 1))
    sequence = admitted.sequence(Lease(0, 1))
    ids = model.tokenizer.target(TEXT)
    sequence.script.feed((ids * (frames // len(ids) + 2))[: frames + 2])
    return sequence


def _write_model(directory: Path, like: str) -> Path:
    from cli.checkpoint.random import write_random

    return write_random(directory, like=like, type="custom_voice", seed=0)  # type: ignore[arg-type]


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench.tts_lm", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--worker", nargs=3, metavar=("MODEL", "DTYPE", "FRAMES"), help=argparse.SUPPRESS)
    parser.add_argument("--reference-python", type=Path, help="Python of the reference environment")
    parser.add_argument("--model", type=Path, help="a checkpoint; absent: a random one")
    parser.add_argument("--like", default="0.6B", choices=["tiny", "0.6B", "1.7B"], help="dimensions of the random one")
    parser.add_argument("--dtypes", default="float32,bfloat16")
    parser.add_argument("--rounds", type=int, default=6, help="utterances per side and dtype")
    parser.add_argument("--frames", type=int, default=10, help="frames per utterance")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--flat", action="store_true", help="ours alone, one long utterance")
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main())
