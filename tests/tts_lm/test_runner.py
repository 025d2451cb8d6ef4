"""The runner: where pages lie, who shares a batch and which slot is leased never change a code."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from cli.checkpoint.random import write_random
from services.tts_lm.model.config import load_config
from services.tts_lm.model.prompt import Script
from services.tts_lm.model.tokenizer import load_tokenizer
from services.tts_lm.model.weights import load_model_weights
from services.tts_lm.pages import PageAllocator, Pages
from services.tts_lm.runner import TorchRunner
from services.tts_lm.scheduler import StepPlan
from services.tts_lm.sequence import Sequence
from tests.tts_lm.stored import Case, Line, Model, in_turn, sequence, speak

LONG = Case("long", (Line("Hello world. How are you today? " * 8, "English", "ryan"),), frames=150)


@pytest.fixture(
    scope="module", params=["float32", "bfloat16", "int8", "native-float32", "native-bfloat16", "native-int8"]
)
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Model:
    kernels, _, dtype = request.param.rpartition("-")
    directory = write_random(tmp_path_factory.mktemp("model"), "tiny", "custom_voice", 11)
    config = load_config(directory)
    weights = load_model_weights(directory, config, dtype, torch.device("cpu"))
    library = request.getfixturevalue("library") if kernels else None
    return Model(directory, config, weights, load_tokenizer(directory), library)


def line(model: Model, slot: int = 0, text: str = "", seed: int = 5) -> Sequence:
    case = Case("one", (Line(text, "English", "ryan"),), frames=12) if text else LONG
    made = sequence(model, case, 0, {}, slot)
    made.sampling = replace(made.sampling, seed=seed, greedy=False, predictor_greedy=False)
    made.terms = replace(made.terms, reference_behaviour=False)
    return made


def run(runner: TorchRunner, running: Sequence, allocate: bool = True) -> list[tuple[int, ...]]:
    frames, allocator = [], PageAllocator(runner.page_count, runner.page_size)
    while running.end is None:
        rows = running.next_row_count()
        if allocate:
            allocator.grow(running.pages, running.position + rows)
        plan = StepPlan(steps=(running,)) if running.prefilled else StepPlan(prefills=(running,))
        codes = runner.execute(plan)[0]
        running.advance(rows)
        running.sampled(codes)
        frames.append(codes)
    return frames


def test_scattered_pages_read_as_contiguous_ones_do(model: Model) -> None:
    runner = model.runner(slot_count=1, position_count=640)
    straight, scattered = line(model), line(model)
    for one in (straight, scattered):
        one.script = Script(model.config)
        one.script.feed([400] * 200)  # never finished: end of speech stays masked
        one.terms = replace(one.terms, reference_behaviour=False)
    expected = run(runner, straight)
    scattered.pages = Pages([7, 2, 5, 0, 9], contiguous=False)
    assert len(expected) > 100  # several pages
    assert run(runner, scattered, allocate=False) == expected


def test_every_slot_beside_any_company_speaks_the_same_in_the_deterministic_profile(model: Model) -> None:
    runner = model.runner(slot_count=5, deterministic=True)
    text = "Good morning, how are you?"
    expected = run(runner, line(model, 0, text))
    for slot in range(5):
        others = [line(model, other, "Hello world. Yes.", seed=other) for other in range(5) if other != slot]
        mine = line(model, slot, text)
        spoken = speak(runner, [*others[: slot + 1], mine])
        assert spoken[-1] == [frame for frame in expected if frame[0] != model.config.codec.eos]


def test_computing_rows_alone_is_the_same_profile(model: Model) -> None:
    """What a machine does whose matrix products tell rows apart."""
    runner = model.runner(slot_count=3, deterministic=True)
    text = "Good morning, how are you?"
    runner.talker._row_wise = runner.predictor._row_wise = True
    expected = run(runner, line(model, 0, text))
    for slot in range(3):
        others = [line(model, other, "Hello world. Yes.", seed=other) for other in range(3) if other != slot]
        spoken = speak(runner, [*others, line(model, slot, text)])
        assert spoken[-1] == [frame for frame in expected if frame[0] != model.config.codec.eos]


@pytest.mark.parametrize("deterministic", [True, False])
def test_a_row_that_sits_out_keeps_what_it_last_said(model: Model, deterministic: bool) -> None:
    """Found when the scheduler began to let rows wait: idle rows of a fixed batch wrote their codes over the last ones
    of whoever sat out, so late text changed speech beside others in the deterministic profile."""
    runner = model.runner(slot_count=2, deterministic=deterministic)
    text = "Good morning, how are you?"
    expected = run(runner, line(model, 0, text))
    mine, other = line(model, 0, text), line(model, 1, "Hello world. Yes.", seed=9)
    assert in_turn(runner, mine, other) == expected


def test_a_slot_carries_nothing_to_its_next_tenant(model: Model) -> None:
    runner = model.runner(slot_count=1)
    fresh = run(runner, line(model, 0, "Yes."))
    run(runner, line(model))
    assert run(runner, line(model, 0, "Yes.")) == fresh


def test_rows_that_differ_are_noticed(model: Model, tmp_path: Path) -> None:
    """The check behind the deterministic profile must be able to fail."""
    import services.tts_lm.runner as module

    real = module.product
    try:
        module.product = lambda x, w: real(x, w) + torch.arange(len(x), dtype=x.dtype)[:, None]  # type: ignore[assignment]
        assert not module.rows_are_equal(model.weights, 4)
    finally:
        module.product = real
    assert model.runner(deterministic=False).row_wise is False
