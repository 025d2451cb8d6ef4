"""What one step costs by its size, on this machine: talker rows, prompt rows, codec rows and frames.

Straight on the two runners, in one process, one after the other: no gRPC, no other work of ours beside it. The report
is what `bench simulate` takes its step times from. A talker row is measured at `--context` frames of speech behind it.
`…_cpu_s` is the processor's time of the same steps: with one thread, what they take when nobody else wants the core.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from bench.report import ROOT, Report

TEXT = "The train leaves at seven, so we should be at the station before half past six, and not a minute later. "


def talker(report: Report, directory: str, arguments: argparse.Namespace) -> None:
    """Steps of 1, 2, 4 … sequences, and prompts of several lengths."""
    from services.tts_lm.load import open_model
    from services.tts_lm.types import EngineOptions

    most, room = max(arguments.batches), arguments.context + arguments.samples + 96
    options = EngineOptions(
        directory,
        device=arguments.device,
        dtype=arguments.dtype,
        slot_count=most,
        kv_positions=most * room,
        thread_count=arguments.threads,
    )
    model = open_model(options)
    report.configuration["dtype"] = model.dtype
    for batch in arguments.batches:
        tell(report, "step", _steps(model, batch, arguments), stage="tts_lm", rows=batch)
    for tokens in arguments.prompts:
        made = [_prompt(model, tokens) for _ in range(arguments.prompt_samples + 1)][1:]
        tell(report, "prefill", [cost for _, cost in made], stage="tts_lm", rows=made[0][0])


Cost = tuple[float, float]
"""Seconds by the clock and of the processor."""


def timed(work: Callable[[], Any]) -> tuple[Any, Cost]:
    """What it gave, and what it cost."""
    began, used = time.perf_counter(), time.process_time()
    made = work()
    return made, (time.perf_counter() - began, time.process_time() - used)


def tell(report: Report, name: str, costs: Sequence[Cost], **where: int | str) -> None:
    report.add(f"{name}_s", [clock_s for clock_s, _ in costs], **where)
    report.add(f"{name}_cpu_s", [cpu_s for _, cpu_s in costs], **where)


def _steps(model: Any, batch: int, arguments: argparse.Namespace) -> list[Cost]:
    from services.tts_lm.pages import PageAllocator
    from services.tts_lm.scheduler import StepPlan

    allocator = PageAllocator(model.runner.page_count, model.runner.page_size)
    speaking = [_sequence(model, slot, arguments.context + arguments.samples + 2) for slot in range(batch)]
    costs = []
    for turn in range(arguments.context + arguments.samples):
        rows = [s.next_row_count() for s in speaking]
        for s, count in zip(speaking, rows, strict=True):
            assert allocator.grow(s.pages, s.position + count)
        plan = StepPlan(steps=tuple(speaking)) if turn else StepPlan(prefills=tuple(speaking))
        frames, cost = timed(partial(model.runner.execute, plan))
        if turn >= arguments.context:
            costs.append(cost)
        for s, count, codes in zip(speaking, rows, frames, strict=True):
            s.advance(count)
            s.sampled(codes)
            s.end = None
            s.take_packet(pausing=True)
    return costs


def _prompt(model: Any, tokens: int) -> tuple[int, Cost]:
    """Rows and cost of one prompt, its first frame included."""
    from services.tts_lm.pages import PageAllocator
    from services.tts_lm.scheduler import StepPlan

    sequence = _sequence(model, 0, tokens, layout="whole")
    sequence.script.finish()
    allocator = PageAllocator(model.runner.page_count, model.runner.page_size)
    rows = sequence.next_row_count()
    assert allocator.grow(sequence.pages, rows)
    return rows, timed(lambda: model.runner.execute(StepPlan(prefills=(sequence,))))[1]


def _sequence(model: Any, slot: int, tokens: int, layout: Any = "streaming") -> Any:
    """The text so often that end of speech stays masked for as many frames."""
    from common.slots import Lease
    from services.tts_lm.admission import House, admit
    from services.tts_lm.types import SamplingParams, UtteranceRequest

    request = UtteranceRequest(sampling=SamplingParams(seed=slot), layout=layout)
    sequence = admit(request, model.config, model.tokenizer, House(tokens + 96, tokens + 1)).sequence(Lease(slot, 1))
    ids = model.tokenizer.target(TEXT)
    sequence.script.feed((ids * (tokens // len(ids) + 1))[:tokens])
    return sequence


def codec(report: Report, directory: str, arguments: argparse.Namespace) -> None:
    """Every shape that a step of the codec may have."""
    import numpy as np

    from services.codec.runner import Runner
    from services.codec.schedule import Row

    most = max(arguments.batches)
    runner = Runner(
        Path(directory),
        device=arguments.device,
        dtype="float32",
        row_count=most,
        max_batch=most,
        max_frames=8,
        thread_count=arguments.threads,
    )
    runner.warm()
    decoder, draw = runner.config.decoder, np.random.default_rng(0)
    for rows, frames in runner.buckets.shapes():
        shape = (frames, decoder.num_quantizers)
        costs = []
        for _ in range(arguments.samples + 2):
            codes = [draw.integers(0, decoder.codebook_size, shape).tolist() for _ in range(rows)]
            given = [Row(slot, False, frame) for slot, frame in enumerate(codes)]
            costs.append(timed(partial(runner.decode, given))[1])
        tell(report, "step", costs[2:], stage="codec", rows=rows, frames=frames)


@contextmanager
def checkpoint(arguments: argparse.Namespace) -> Iterator[str]:
    """The one that was named, or a random one of the dimensions asked for."""
    if arguments.model:
        yield str(arguments.model)
        return
    from cli.checkpoint.random import write_random

    with tempfile.TemporaryDirectory() as scratch:
        yield str(write_random(Path(scratch), like=arguments.like, type="custom_voice", seed=0))


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print the table, write the report."""
    parser = argparse.ArgumentParser(prog="voicemesh bench steps", description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--model", type=Path, help="a checkpoint; absent: a random one")
    parser.add_argument("--like", default="tiny", choices=["tiny", "0.6B", "1.7B"], help="dimensions of the random one")
    parser.add_argument("--device", default="cpu", help="cpu, cuda or cuda:N")
    parser.add_argument("--dtype", default="auto", help="of the talker")
    parser.add_argument("--batches", type=_integers, default=[1, 2, 4, 8, 16, 32], help="sequences in a step")
    parser.add_argument("--prompts", type=_integers, default=[4, 32, 128], help="text tokens of a prompt")
    parser.add_argument("--samples", type=int, default=40, help="steps of each size")
    parser.add_argument("--prompt-samples", type=int, default=5, help="prompts of each length")
    parser.add_argument("--context", type=int, default=60, help="frames behind a talker row before it is timed")
    parser.add_argument("--threads", type=int, help="absent: as the services choose")
    parser.add_argument("--json", action="store_true", help="print the report instead of a table, and write no file")
    arguments = parser.parse_args(argv)
    with checkpoint(arguments) as directory:
        configuration = {key: value for key, value in vars(arguments).items() if key not in ("json", "model")}
        weights = Path(directory).resolve().relative_to(ROOT) if arguments.model else f"random, {arguments.like}"
        report = Report("steps", configuration | {"weights": str(weights)})
        talker(report, directory, arguments)
        arguments.threads = arguments.threads or 0
        codec(report, directory, arguments)
    if arguments.json:
        print(json.dumps(report.document()))
    else:
        print(report.table())
        print(report.write())
    return 0


def _integers(text: str) -> list[int]:
    return [int(part) for part in text.split(",") if part]


if __name__ == "__main__":
    sys.exit(main())
