"""The device behind the engine's thread: lanes, shapes, precision; graphs where there is a GPU."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from services.codec.lanes import RowOrder
from services.codec.model import conv
from services.codec.model.config import CodecConfig
from services.codec.model.weights import load_decoder
from services.codec.runner import GPU_STEP_FRAMES, Runner
from services.codec.schedule import Buckets, Row
from tests.codec.hearing import random_codes

ROWS = 6


def opened(tiny: Path, device: str = "cpu", dtype: str = "float32", **options: Any) -> Runner:
    runner = Runner(tiny, device=device, dtype=dtype, row_count=ROWS, max_batch=4, max_frames=4, **options)
    runner.warm()
    return runner


def speech(runner: Runner, packets: tuple[int, ...] = (1, 2, 4, 1), slot: int = 0) -> np.ndarray:
    """One utterance, its first frame in the lane of first frames where there is one."""
    codes, at, heard = random_codes(sum(packets), slot), 0, []
    for frames in packets:
        first = at == 0 and runner.first_buckets is not None
        heard += runner.launch([Row(slot, at == 0, codes[at : at + frames])], first=first).samples()
        at += frames
    return np.concatenate(heard)


@pytest.mark.parametrize(("dtype", "decibels"), [("float16", 30.0), ("bfloat16", 15.0)])
def test_narrow_dtypes_are_as_near_as_their_mantissas(tiny: Path, dtype: str, decibels: float) -> None:
    exact, narrow = speech(opened(tiny)), speech(opened(tiny, dtype=dtype))
    noise = np.sqrt(np.square(narrow - exact).mean())
    assert noise > 0
    assert 20 * np.log10(np.sqrt(np.square(exact).mean()) / noise) > decibels


def test_serving_runs_no_shape_that_warming_did_not(tiny: Path) -> None:
    runner = opened(tiny)
    seen: list[tuple[int, ...]] = []
    inner = runner._decoder
    runner._decoder = lambda codes, *rest: seen.append(tuple(codes.shape[:2])) or inner(codes, *rest)  # type: ignore[assignment, func-returns-value]
    speech(runner)
    runner.decode([Row(slot, True, random_codes(1, slot)) for slot in range(4)])
    assert seen
    assert set(seen) <= set(runner.buckets.shapes())


def test_a_step_on_a_gpu_is_never_long() -> None:
    buckets = Buckets((1, 2, 64, 128, 256), (1, 2, 4), GPU_STEP_FRAMES, pad_rows=True)
    assert max(b * t for b, t in buckets.shapes()) == GPU_STEP_FRAMES


def test_a_row_waits_for_the_other_lane_that_touched_it_last() -> None:
    order, here, there = RowOrder(), SimpleNamespace(), SimpleNamespace()
    order.touched([1, 2], here, "a")  # type: ignore[arg-type]
    order.touched([2, 3], there, "b")  # type: ignore[arg-type]
    assert order.before([1, 2, 3, 4], there) == ["a"]  # type: ignore[arg-type]
    assert order.before([2, 3], here) == ["b"]  # type: ignore[arg-type]


@pytest.mark.timeout(300)
def test_the_step_is_one_graph_to_torchs_compiler(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on CUDA: packed products are the CPU's own, and no compiler looks into them."""
    monkeypatch.setattr(conv, "_CAN_PACK", False)
    decoder = load_decoder(CodecConfig.read(tiny), device=torch.device("cpu"), dtype=torch.float32)
    codes, slots = torch.tensor([random_codes(2)]), torch.tensor([0])
    heard = []
    for step in (decoder, torch.compile(decoder.__call__, backend="eager", fullgraph=True, dynamic=False)):
        state = decoder.new_state(2, 2)
        heard += [step(codes, state, slots, torch.tensor([fresh])) for fresh in (True, False)]
    assert torch.equal(heard[0], heard[2])
    assert torch.equal(heard[1], heard[3])


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_graph_equals_eager(tiny: Path, dtype: str) -> None:
    graphed, eager = opened(tiny, "cuda", dtype), opened(tiny, "cuda", dtype, eager=True)
    np.testing.assert_allclose(speech(graphed), speech(eager), rtol=0, atol=1e-5 if dtype == "float32" else 1e-2)


@pytest.mark.gpu
def test_a_gpu_sounds_like_the_cpu_and_a_reused_slot_like_a_fresh_one(tiny: Path) -> None:
    runner = opened(tiny, "cuda")
    first, again = speech(runner), speech(runner)
    assert np.array_equal(first, again)
    np.testing.assert_allclose(first, speech(opened(tiny)), rtol=0, atol=1e-4)
    assert not torch.backends.cudnn.allow_tf32
    assert not torch.backends.cuda.matmul.allow_tf32


@pytest.mark.gpu
def test_first_frames_run_beside_a_step_and_go_first(tiny: Path) -> None:
    runner = opened(tiny, "cuda")
    ordinary, first = runner.lanes
    assert first.stream.priority < ordinary.stream.priority
    alone = speech(runner, slot=1)
    flying = runner.launch([Row(0, True, random_codes(4, 0))])
    beside = speech(runner, slot=1)
    flying.samples()
    np.testing.assert_allclose(beside, alone, rtol=0, atol=1e-5)


@pytest.mark.gpu
def test_a_copied_slot_goes_on_in_the_other_lane(tiny: Path) -> None:
    runner = opened(tiny, "cuda")
    codes = random_codes(5, 3)
    whole = np.concatenate([runner.decode([Row(0, at == 0, codes[at : at + 1])])[0] for at in range(5)])
    begun = runner.launch([Row(1, True, codes[:4])])
    runner.copy_slot(1, 2)
    rest = runner.launch([Row(2, False, codes[4:])], first=True).samples()[0]
    np.testing.assert_allclose(np.concatenate([begun.samples()[0], rest]), whole, rtol=0, atol=1e-4)
