"""The talker on a GPU: frames and their parts, what the deterministic profile costs, what bfloat16 does, and parity.

`python -m bench.talker_gpu WHAT --model DIR --device cuda`; `bench gpu` calls the same functions. Straight on the
runner: no gRPC, no engine thread. Imports neither pydantic nor OpenTelemetry and needs torch and NumPy alone. With
`--device cpu` the eager twin runs, which proves the code and measures nothing.

  parity         graph = eager twin, a row in company = the row alone, a reused slot = a fresh one
  steps          a frame by batch and context: by the host's clock, by CUDA events, and the gap between
  deterministic  the same step in both profiles
  drift          logits in bfloat16 against float32, under teacher forcing
  profile        where a step's time goes, by kernel
  tune           products of the model's shapes by tile (`services/tts_lm/fused/product.py`)
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from functools import partial
from itertools import product as every
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bench.logits import compare_logits
from common.slots import Lease
from services.tts_lm.admission import House, admit
from services.tts_lm.graphed import GraphedRunner
from services.tts_lm.model.config import ModelConfig, load_config
from services.tts_lm.model.step_kernels import CodeTable, Draws, StepKernels
from services.tts_lm.model.tokenizer import Tokenizer, load_tokenizer
from services.tts_lm.model.weights import ModelWeights, load_model_weights
from services.tts_lm.pages import PageAllocator
from services.tts_lm.scheduler import StepPlan
from services.tts_lm.sequence import Sequence as Spoken
from services.tts_lm.types import SamplingParams, UtteranceRequest

TEXT = "The train leaves at seven, so we should be at the station before half past six, and not a minute later. "
Frames = list[tuple[int, ...]]


class Voice:
    """A checkpoint on a device, and runners over it."""

    def __init__(self, model_dir: Path, device: str, dtype: str = "auto") -> None:
        self.device = torch.device(device)
        self.dtype = ("float32" if self.device.type == "cpu" else "bfloat16") if dtype == "auto" else dtype
        self.config: ModelConfig = load_config(model_dir)
        self.tokenizer: Tokenizer = load_tokenizer(model_dir)
        self.weights: ModelWeights = load_model_weights(model_dir, self.config, self.dtype, self.device)

    def runner(self, slots: int, positions: int, **options: Any) -> GraphedRunner:
        """With room for `positions` in each slot."""
        whole = -(-positions // GraphedRunner.page_size) * GraphedRunner.page_size
        runner = GraphedRunner(
            self.weights, self.config, slot_count=slots, position_count=slots * whole, max_positions=whole, **options
        )
        runner.capture()
        return runner

    def sequence(self, slot: int, seed: int, frames: int, text: str = TEXT, **sampling: Any) -> Spoken:
        """Text enough that end of speech stays masked for so many frames."""
        request = UtteranceRequest(sampling=SamplingParams(seed=seed, **sampling), max_frames=frames)
        house = House(self.config.talker.max_positions, frames + 1)
        made = admit(request, self.config, self.tokenizer, house).sequence(Lease(slot, 1))
        ids = self.tokenizer.target(text)
        made.script.feed((ids * (frames // len(ids) + 2))[: frames + 2])
        made.prefix = None
        return made


def speak(runner: GraphedRunner, spoken: Sequence[Spoken], before: Callable[[int], None] | None = None) -> list[Frames]:
    """All of them at once, to their ends; `before` is told the number of each step."""
    allocator = PageAllocator(runner.page_count, runner.page_size)
    frames: dict[int, Frames] = {id(one): [] for one in spoken}
    step = 0
    while running := [one for one in spoken if one.end is None]:
        counts = [one.next_row_count() for one in running]
        for one, count in zip(running, counts, strict=True):
            assert allocator.grow(one.pages, one.position + count), "the pool is too small for this benchmark"
        if before is not None:
            before(step)
        plan = StepPlan(
            prefills=tuple(one for one in running if not one.prefilled),
            steps=tuple(one for one in running if one.prefilled),
        )
        for one, codes in zip(plan.sequences, runner.execute(plan), strict=True):
            one.advance(counts[running.index(one)])
            one.sampled(codes)
            frames[id(one)].append(codes)
        step += 1
    return [frames[id(one)] for one in spoken]


# Parity


def parity_smoke(model_dir: Path, device: str, *, frames: int = 24, dtype: str = "auto") -> dict[str, Any]:
    """Equal or not, integer for integer, in the deterministic profile; the first thing to know on a new machine."""
    voice, positions = Voice(model_dir, device, dtype), frames + 128

    def alone(runner: GraphedRunner, slot: int, seed: int) -> Frames:
        return speak(runner, [voice.sequence(slot, seed, frames)])[0]

    graph = voice.runner(4, positions, deterministic=True)
    expected = [alone(graph, slot, slot) for slot in range(4)]
    together = speak(graph, [voice.sequence(slot, slot, frames) for slot in range(4)])
    twin = voice.runner(4, positions, deterministic=True, eager=True)
    fast = voice.runner(4, positions)
    captured = graph.capture_count
    return {
        "kernels": type(graph.kernels).__name__,
        "dtype": voice.dtype,
        "graph_is_eager": expected == [alone(twin, slot, slot) for slot in range(4)],
        "row_in_company_is_row_alone": together == expected,
        "reused_slot_is_fresh": alone(graph, 0, 0) == expected[0],
        "another_slot_is_the_same": alone(graph, 3, 0) == expected[0],
        "fast_profile_agrees": share_equal(expected, [alone(fast, slot, slot) for slot in range(4)]),
        "captures_after_ready": graph.capture_count - captured,
    }


def share_equal(left: list[Frames], right: list[Frames]) -> float:
    """Of codes that are equal at their places."""
    pairs = [
        a == b
        for x, y in zip(left, right, strict=True)
        for f, g in zip(x, y, strict=False)
        for a, b in zip(f, g, strict=True)
    ]
    return sum(pairs) / len(pairs)


# Times


def step_times(
    model_dir: Path,
    device: str,
    *,
    batches: Iterable[int] = (1, 2, 4, 8, 16, 32, 64, 128),
    context: int = 200,
    frames: int = 64,
    deterministic: bool = False,
    dtype: str = "auto",
    voice: Voice | None = None,
) -> list[dict[str, Any]]:
    """Seconds of one frame of `rows` utterances that have `context` positions behind them."""
    voice = voice or Voice(model_dir, device, dtype)
    sizes = list(batches)
    runner = voice.runner(max(sizes), context + frames + 8, deterministic=deterministic)
    told = []
    for rows in sizes:
        host, on_device = timed_steps(runner, voice, rows, context, frames)
        told.append(
            {"rows": rows, "context": context, "deterministic": deterministic, "dtype": voice.dtype, "n": len(host)}
            | {"kernels": type(runner.kernels).__name__, **quantiles("", host), **quantiles("device_", on_device)}
            | {"host_gap_p50_s": statistics.median(host) - statistics.median(on_device)}
        )
    return told


def timed_steps(
    runner: GraphedRunner, voice: Voice, rows: int, context: int, frames: int
) -> tuple[list[float], list[float]]:
    """By the host's clock, from plan to codes; and between two events round the same on its stream."""
    spoken = ready_rows(runner, voice, rows, context, frames)
    host, on_device = [], []
    for turn in range(frames):
        began = time.perf_counter()
        marks = _marks(runner)
        collect = runner.launch(StepPlan(steps=tuple(spoken)))
        marks(1)
        codes = collect()
        host.append(time.perf_counter() - began)
        on_device.append(marks(2) or host[-1])
        for one, frame in zip(spoken, codes, strict=True):
            one.advance(1)
            one.sampled(frame)
            one.end = None
            one.take_packet(pausing=True)
        if turn == frames // 8:  # what came before warmed up
            host, on_device = [], []
    return host, on_device


def ready_rows(runner: GraphedRunner, voice: Voice, rows: int, context: int, frames: int) -> list[Spoken]:
    """Utterances in mid-speech: slots opened by their prompts, positions moved on to `context` (over zeros)."""
    allocator = PageAllocator(runner.page_count, runner.page_size)
    spoken = [voice.sequence(slot, slot, context + frames + 8) for slot in range(rows)]
    for one in spoken:
        allocator.grow(one.pages, context + frames + 1)
    for one, codes in zip(spoken, runner.execute(StepPlan(prefills=tuple(spoken))), strict=True):
        one.advance(one.next_row_count())
        one.sampled(codes)
        one.end, one.position = None, context
    return spoken


def _marks(runner: GraphedRunner) -> Callable[[int], float]:
    """Called 1 behind the launch and 2 behind the wait; the second gives the seconds between two events, or 0."""
    stream = runner.stream
    if stream is None:
        return lambda which: 0.0
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    begin.record(stream)

    def mark(which: int) -> float:
        if which == 1:
            end.record(stream)
            return 0.0
        end.synchronize()
        return begin.elapsed_time(end) / 1000

    return mark


def quantiles(prefix: str, seconds: list[float]) -> dict[str, float]:
    ordered = sorted(seconds)
    at = {"p50": 0.5, "p95": 0.95, "p99": 0.99}
    return {f"{prefix}{name}_s": ordered[min(len(ordered) - 1, int(q * len(ordered)))] for name, q in at.items()}


def deterministic_cost(
    model_dir: Path, device: str, *, batches: Iterable[int] = (1, 8, 32), frames: int = 48, dtype: str = "auto"
) -> list[dict[str, Any]]:
    """What it costs that nobody's company changes a code."""
    voice, sizes = Voice(model_dir, device, dtype), list(batches)
    fast, fixed = (
        step_times(model_dir, device, batches=sizes, frames=frames, deterministic=profile, voice=voice)
        for profile in (False, True)
    )
    return [
        {
            "rows": a["rows"],
            "fast_s": a["device_p50_s"],
            "deterministic_s": b["device_p50_s"],
            "ratio": b["device_p50_s"] / a["device_p50_s"],
        }
        for a, b in zip(fast, fixed, strict=True)
    ]


# Drift


class Forced:
    """A step's kernels whose draws are given: keeps raw logits, and says `frame` [Q] in every row."""

    def __init__(self, inner: StepKernels, frame: Tensor) -> None:
        self._inner, self.frame = inner, frame
        self.logits_seen: list[list[Tensor]] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def logits(self, x: Tensor, norm: tuple[Tensor, float] | None, matrix: Tensor) -> Tensor:
        found = self._inner.logits(x, norm, matrix)
        self.logits_seen[-1].append(found[0].double().cpu())
        return found

    def draw_first(
        self, logits: Tensor, draws: Draws, suppressed: Tensor, eos: int, table: CodeTable, code_count: int
    ) -> Tensor:
        following = self.draw_next(0, logits, draws, table)
        assert following is not None
        return following

    def draw_next(self, codebook: int, logits: Tensor, draws: Draws, table: CodeTable | None) -> Tensor | None:
        code = self.frame[codebook].expand(len(draws.slot))
        draws.codes[:, codebook] = code
        draws.slots.codes[draws.slot, codebook] = code
        return None if table is None else table.rows[code + table.first[codebook]].to(self._inner.row_dtype)


def forced_logits(model_dir: Path, device: str, dtype: str, forced: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Of the talker [F, C] and the predictor [F, Q − 1, V] while the frames [F, Q] are said, whatever is drawn."""
    voice, count = Voice(model_dir, device, dtype), len(forced)
    runner = voice.runner(1, count + 128, eager=True)
    kernels = Forced(runner.kernels, forced[0].to(voice.device))
    runner.frame_step.kernels = kernels  # type: ignore[assignment]

    def next_frame(step: int) -> None:
        kernels.frame = forced[step].to(voice.device)
        kernels.logits_seen.append([])

    speak(runner, [voice.sequence(0, 0, count)], next_frame)
    talker = [frame[0] for frame in kernels.logits_seen]
    predictor = [torch.stack(frame[1:]) for frame in kernels.logits_seen]
    return torch.stack(talker).numpy(), torch.stack(predictor).numpy()


def logit_drift(
    model_dir: Path, device: str, *, frames: int = 64, dtype: str = "bfloat16", against: str = "float32"
) -> dict[str, Any]:
    """How far one dtype's logits are from another's when both have said the same: root mean square error over that of
    the logits about their mean, share of equal best codes, mean divergence of the softmaxes; and how the error grows
    from the first eighth of the frames to the last. Frames are what the exact side says by itself."""
    voice = Voice(model_dir, device, against)
    said = speak(voice.runner(1, frames + 128, eager=True), [voice.sequence(0, 0, frames)])[0]
    forced = torch.tensor(said)
    del voice
    right, found = (forced_logits(model_dir, device, name, forced) for name in (against, dtype))
    told: dict[str, Any] = {"dtype": dtype, "against": against, "frames": len(forced)}
    for part, a, b in zip(("talker", "predictor"), right, found, strict=True):
        error, agreement, divergence = compare_logits(a, b)
        eighth = max(1, len(a) // 8)
        told[f"{part}_error"], told[f"{part}_agreement"] = error, agreement
        told[f"{part}_divergence_nats"] = divergence
        told[f"{part}_error_first"] = compare_logits(a[:eighth], b[:eighth])[0]
        told[f"{part}_error_last"] = compare_logits(a[-eighth:], b[-eighth:])[0]
    return told


# Where the time goes


def profile(
    model_dir: Path, device: str, *, rows: int = 1, context: int = 200, dtype: str = "auto"
) -> list[dict[str, Any]]:
    """Kernels of one step by the time they take; needs CUDA."""
    from torch.profiler import ProfilerActivity
    from torch.profiler import profile as profiled

    voice, steps = Voice(model_dir, device, dtype), 5
    runner = voice.runner(rows, context + 64)
    spoken = ready_rows(runner, voice, rows, context, 32)
    plan = StepPlan(steps=tuple(spoken))
    runner.execute(plan)
    with profiled(activities=[ProfilerActivity.CUDA]) as seen:
        for _ in range(steps):
            runner.execute(plan)
    found = [
        {"kernel": event.key, "count": event.count / steps, "us": event.self_device_time_total / steps}
        for event in seen.key_averages()
        if event.self_device_time_total
    ]
    return sorted(found, key=lambda each: -each["us"])


def tune(
    model_dir: Path, device: str, *, rows: Iterable[int] = (1, 4, 16), dtype: str = "auto"
) -> list[dict[str, Any]]:
    """The fastest tiles of every product of a talker layer, and the one in use; each run goes through the layers in
    turn, so that weights come from memory and not from a cache."""
    from services.tts_lm.fused.product import TILE, Tile

    voice = Voice(model_dir, device, dtype)
    layers, told = voice.weights.talker.layers, []
    tiles = [Tile(*each) for each in every((8, 16, 32), (64, 128, 256), (2, 4, 8), (3, 5))]
    for name, count in every(("qkv", "output", "gate_up", "down"), rows):
        matrices = [getattr(layer, name) for layer in layers]
        x = torch.randn(count, matrices[0].shape[1], device=voice.device, dtype=torch.float32)
        x = x.to(matrices[0].dtype) if name in ("output", "down") else x
        norm = layers[0].attention_norm if name in ("qkv", "gate_up") else None
        times = {
            tile: _graph_s(partial(_products, x, matrices, norm, name == "gate_up", tile), voice.device) / len(matrices)
            for tile in tiles
        }
        best = sorted(times, key=lambda tile: times[tile])[:3]
        read_bytes = matrices[0].numel() * matrices[0].element_size()
        told += [
            {"product": name, "rows": count, "us": times[tile] * 1e6, "bytes_per_s": read_bytes / times[tile]}
            | asdict(tile)
            | {"in_use": tile == TILE}
            for tile in best
        ]
    return told


def _products(x: Tensor, matrices: list[Tensor], norm: Tensor | None, gated: bool, tile: Any) -> None:
    from services.tts_lm.fused.product import product

    for matrix in matrices:
        product(x, matrix, torch.float32, norm=norm, eps=1e-6, gated=gated, tile=tile)


def _graph_s(run: Callable[[], None], device: torch.device, runs: int = 5) -> float:
    """Seconds of one replay of what `run` launches."""
    run()
    torch.cuda.synchronize(device)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        run()
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    graph.replay()
    begin.record()
    for _ in range(runs):
        graph.replay()
    end.record()
    end.synchronize()
    return begin.elapsed_time(end) / 1000 / runs


WHAT: dict[str, Callable[..., Any]] = {
    "parity": parity_smoke,
    "steps": step_times,
    "deterministic": deterministic_cost,
    "drift": logit_drift,
    "profile": profile,
    "tune": tune,
}


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="bench.talker_gpu", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("what", choices=WHAT)
    parser.add_argument("--model", type=Path, required=True, help="a checkpoint (voicemesh checkpoint random)")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--frames", type=int)
    parser.add_argument("--batches", type=lambda text: [int(part) for part in text.split(",")])
    arguments = parser.parse_args(argv)
    given = {"frames": arguments.frames, "batches": arguments.batches}
    torch.set_grad_enabled(False)
    told = WHAT[arguments.what](
        arguments.model, arguments.device, **{name: value for name, value in given.items() if value is not None}
    )
    for line in told if isinstance(told, list) else [told]:
        print(json.dumps(line))
    return 0


if __name__ == "__main__":
    sys.exit(main())
