"""Sections below the engines: the machine's rates, steps of both models by shape, drift, the cost of determinism."""

from __future__ import annotations

import time
from functools import partial
from typing import Any

import numpy as np
import torch

from bench.on_gpu.budget import Budget
from bench.on_gpu.engines import model_config
from bench.on_gpu.suite import Suite
from bench.roofline import counted_products, talker_step
from services.codec.runner import Runner
from services.codec.schedule import Row

COMPILED_SHAPES = ((1, 1), (4, 4))
"""Enough to compare: each takes torch's compiler tens of seconds."""
COMPILE_S = 60.0


async def machine(suite: Suite, budget: Budget) -> None:
    """What memory and arithmetic give, and what a kernel costs that only waits for the one before it."""
    rates = suite.rates()
    suite.report.value("copy_bytes_per_s", rates.bytes_per_s)
    suite.report.value("operations_per_s", rates.operations_per_s, dtype="bfloat16" if suite.on_gpu else "float32")
    if suite.on_gpu:
        from bench.roofline import graph_kernel_s, measure_gpu

        exact = measure_gpu(suite.device, torch.float32)
        suite.report.value("operations_per_s", exact.operations_per_s, dtype="float32")
        suite.report.value("graph_kernel_s", graph_kernel_s(suite.device))


async def steps(suite: Suite, budget: Budget) -> None:
    """tts_lm's step by batch, at both sizes."""
    from bench.talker_gpu import step_times

    await suite.close_pair()
    sizes = suite.scale.distinct_sizes
    for place, size in enumerate(sizes):
        part = budget.share(1, len(sizes) - place)
        config, context = model_config(suite, size), suite.scale.positions // 2
        frames = part.count(suite.scale.samples, 0.02 * len(suite.scale.batches), 8)
        batches = suite.scale.batches
        for row in step_times(suite.model(size), suite.device, batches=batches, context=context, frames=frames):
            where = {"stage": "tts_lm", "size": size, "rows": row["rows"], "context": row["context"]}
            suite.report.figures.append({"name": "step_s", **where, **_percentiles(row)})
            frame = talker_step(config, row["rows"], row["context"], suite.item_bytes)
            suite.floor("step", row["p50_s"], frame.byte_count, frame.operation_count, **where)


def _percentiles(row: dict[str, Any]) -> dict[str, Any]:
    """`p50_s` of the talker's own bench as a figure's `p50`; its other measures keep their names."""
    names = {"p50_s": "p50", "p95_s": "p95", "p99_s": "p99"}
    return {names.get(key, key): value for key, value in row.items() if key not in ("rows", "context")}


async def codec(suite: Suite, budget: Budget) -> None:
    """The codec's step by (rows, frames): captured, eager, and compiled and captured; float16 and bfloat16 beside."""
    model, shapes = suite.model("0.6B"), suite.scale.codec_shapes
    most = max(rows for rows, _ in shapes)
    graphed = _codec_runner(suite, model, most)
    operations = _codec_operations(suite, model)
    for rows, frames in shapes:
        times = _codec_times(suite, graphed, rows, frames, budget.count(suite.scale.samples, 0.02 * rows * frames, 5))
        where = {"stage": "codec", "way": "graph", "dtype": "float32", "rows": rows, "frames": frames}
        found = suite.report.add("step_s", times, **where)
        suite.floor("step", found["p50"], operations[0], operations[1] * rows * frames, **where)
    first = [_timed(partial(_first_step, graphed, fresh)) for fresh in (True, False) * suite.scale.samples]
    suite.report.add("step_s", first[2::2], stage="codec", way="first lane", fresh=True, rows=1, frames=1)
    suite.report.add("step_s", first[3::2], stage="codec", way="first lane", fresh=False, rows=1, frames=1)
    del graphed
    compared = [shape for shape in COMPILED_SHAPES if shape in shapes] or [shapes[0]]
    for dtype, way in (("float32", "eager"), ("float16", "graph"), ("bfloat16", "graph"), ("float32", "compiled")):
        if way == "compiled" and (not suite.on_gpu or budget.left_s < COMPILE_S):
            suite.report.value("left_out", 1.0, stage="codec", way="compiled")
            continue
        for rows, frames in compared:
            runner = _codec_runner(suite, model, rows, frames, dtype, way)
            where = {"stage": "codec", "way": way, "dtype": dtype, "rows": rows, "frames": frames}
            suite.report.add("step_s", _codec_times(suite, runner, rows, frames, suite.scale.samples), **where)


def _codec_runner(
    suite: Suite, model: Any, rows: int, frames: int = 8, dtype: str = "float32", way: str = "graph"
) -> Runner:
    began_s = time.perf_counter()
    runner = Runner(
        model,
        device=suite.device,
        dtype=dtype,
        row_count=rows,
        max_batch=rows,
        max_frames=frames,
        compile_step=way == "compiled",
        eager=way == "eager",
    )
    runner.warm()
    suite.report.value("ready_s", time.perf_counter() - began_s, stage="codec", way=way, dtype=dtype, most_rows=rows)
    return runner


def _codec_times(suite: Suite, runner: Runner, rows: int, frames: int, samples: int) -> list[float]:
    """From codes on the host to samples on the host."""
    config, draw, times = runner.config.decoder, np.random.default_rng(0), []
    for turn in range(samples + 2):
        codes = draw.integers(0, config.codebook_size, (rows, frames, config.num_quantizers)).tolist()
        given = [Row(slot, turn == 0, codes[slot]) for slot in range(rows)]
        times.append(_timed(partial(runner.decode, given)))
    return times[2:]


def _first_step(runner: Runner, fresh: bool) -> None:
    codes = [[0] * runner.config.decoder.num_quantizers]
    runner.launch([Row(0, fresh, codes)], first=runner.first_buckets is not None).samples()


def _timed(work: Any) -> float:
    began_s = time.perf_counter()
    work()
    return time.perf_counter() - began_s


def _codec_operations(suite: Suite, model: Any) -> tuple[float, float]:
    """Bytes of weights of a step, operations of a frame in its products."""
    runner = _codec_runner(suite, model, 1, 1, way="eager")
    with counted_products() as products:
        runner.decode([Row(0, True, [[0] * runner.config.decoder.num_quantizers])])
    byte_count, operation_count = (sum(part) for part in zip(*products, strict=True))
    return byte_count, operation_count


async def talker_parity(suite: Suite, budget: Budget) -> None:
    """What the talker's own bench says of graph and eager, of rows and slots."""
    from bench.talker_gpu import parity_smoke

    await suite.close_pair()
    told = parity_smoke(suite.model("0.6B"), suite.device, frames=suite.scale.parity_frames)
    _tell_numbers(suite, told, size="0.6B")


def _tell_numbers(suite: Suite, told: dict[str, Any], **where: Any) -> None:
    """Each number as a figure; what is no number says of what they are."""
    where |= {name: value for name, value in told.items() if isinstance(value, str)}
    for name, value in told.items():
        if not isinstance(value, str):
            suite.report.value(name, float(value), **where)


async def drift(suite: Suite, budget: Budget) -> None:
    """Logits in bfloat16 against float32 under teacher forcing."""
    from bench.talker_gpu import logit_drift

    await suite.close_pair()
    for size in suite.scale.distinct_sizes:
        told = logit_drift(suite.model(size), suite.device, frames=suite.scale.drift_frames)
        _tell_numbers(suite, told, size=size)
        if budget.spent:
            break


async def deterministic(suite: Suite, budget: Budget) -> None:
    """What the deterministic profile costs a step."""
    from bench.talker_gpu import deterministic_cost

    await suite.close_pair()
    batches = tuple(b for b in (1, 8, 32) if b <= suite.scale.slots)
    for size in suite.scale.distinct_sizes:
        for row in deterministic_cost(suite.model(size), suite.device, batches=batches, frames=suite.scale.samples):
            suite.report.value(
                "deterministic_over_fast", row["ratio"], size=size, **{k: row[k] for k in row if k != "ratio"}
            )
        if budget.spent:
            break
