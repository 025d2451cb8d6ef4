"""Where a frame's time goes on the device, from torch's profiler: kernels by their time, and what lies between them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from bench.loads import Line
from bench.on_gpu.speech import Answer, Pair

WINDOW_S = 0.25
TOP = 12


@dataclass(frozen=True)
class Kernel:
    """One run of one kernel; seconds of the device's clock."""

    name: str
    begin_s: float
    end_s: float


@dataclass(frozen=True)
class Use:
    """Of a window: time with at least one kernel, and how long each time without lasted."""

    window_s: float
    busy_s: float
    gaps_s: list[float]


def use_of(kernels: Sequence[Kernel]) -> Use:
    """From the first kernel's beginning to the last one's end; kernels may run at the same time. Pure."""
    ordered = sorted(kernels, key=lambda kernel: kernel.begin_s)
    reached_s, busy_s, gaps = ordered[0].begin_s, 0.0, []
    for kernel in ordered:
        if kernel.begin_s > reached_s:
            gaps.append(kernel.begin_s - reached_s)
        busy_s += max(0.0, kernel.end_s - max(kernel.begin_s, reached_s))
        reached_s = max(reached_s, kernel.end_s)
    return Use(reached_s - ordered[0].begin_s, busy_s, gaps)


async def profiled(suite: Any, pair: Pair, said: Iterator[Line], rows: int, size: str) -> None:
    """A window of `rows` voices that speak as fast as they can."""
    kinds = [torch.profiler.ProfilerActivity.CUDA if suite.on_gpu else torch.profiler.ProfilerActivity.CPU]
    await pair.all_free()
    answers = [Answer(pair, next(said)) for _ in range(rows)]
    tasks = [asyncio.create_task(answer.run()) for answer in answers]
    try:
        for answer in answers:
            await answer.sounds.wait()
        before = len(pair.talker_steps.steps)
        began_s = time.perf_counter()
        with torch.profiler.profile(activities=kinds, acc_events=True) as trace:
            await asyncio.sleep(WINDOW_S)
        wall_s, steps = time.perf_counter() - began_s, len(pair.talker_steps.steps) - before
    finally:
        for answer in answers:
            answer.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    _tell(suite, _kernels(trace), steps, wall_s, rows=rows, size=size)


def _kernels(trace: Any) -> list[Kernel]:
    """Device kernels and copies; on a CPU there are none."""
    on_device = torch.autograd.DeviceType.CUDA
    return [
        Kernel(event.name, event.time_range.start / 1e6, event.time_range.end / 1e6)
        for event in trace.events()
        if event.device_type == on_device
    ]


def _tell(suite: Any, kernels: list[Kernel], steps: int, wall_s: float, **where: Any) -> None:
    suite.report.value("profiled_steps", steps, **where)
    suite.report.value("profiled_wall_s", wall_s, **where)
    if not kernels or not steps:
        return
    use = use_of(kernels)
    suite.report.value("device_busy_share", use.busy_s / use.window_s, **where)
    suite.report.value("kernels_per_step", len(kernels) / steps, **where)
    if use.gaps_s:
        suite.report.add("kernel_gap_s", use.gaps_s, **where)
    by_name: dict[str, list[float]] = {}
    for kernel in kernels:
        by_name.setdefault(kernel.name, []).append(kernel.end_s - kernel.begin_s)
    busiest = sorted(by_name.items(), key=lambda item: -sum(item[1]))[:TOP]
    for name, times in busiest:
        suite.report.value(
            "kernel_share",
            sum(times) / sum(map(sum, by_name.values())),
            kernel=name[:90],
            per_step=round(len(times) / steps, 2),
            mean_s=sum(times) / len(times),
            **where,
        )
