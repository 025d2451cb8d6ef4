"""The stored references of tests/reference/tts_lm as requests for our own model, and the checkpoints they were made
on.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cli.checkpoint.random import write_random
from common.slots import Lease
from services.tts_lm.model.config import ModelConfig, load_config
from services.tts_lm.model.prompt import Script, Speaker, build_prompt, language_id
from services.tts_lm.model.tokenizer import Tokenizer, load_tokenizer
from services.tts_lm.model.weights import ModelWeights, load_weights
from services.tts_lm.native.library import Library
from services.tts_lm.pages import PageAllocator
from services.tts_lm.runner import TorchRunner
from services.tts_lm.scheduler import StepPlan, plan_step
from services.tts_lm.sequence import ResolvedSampling, Sequence, Terms
from tools.reference.talker_cases import CASES, CHECKPOINTS, REAL, REAL_CASES, Case, Checkpoint, Line

STORE = Path(__file__).parents[1] / "reference" / "tts_lm"
GREEDY = ResolvedSampling(0, True, 0.9, 50, 1.0, 1.05, True, 0.9, 50, 1.0)


@dataclass(frozen=True)
class Model:
    """A checkpoint, loaded in float32; its runners are on torch or on the compiled kernels."""

    directory: Path
    config: ModelConfig
    weights: ModelWeights
    tokenizer: Tokenizer
    library: Library | None = None

    def runner(self, **options: Any) -> TorchRunner:
        options = {"slot_count": 4, "position_count": 2048, "max_positions": 1024, "library": self.library} | options
        return TorchRunner(self.weights, self.config, **options)


def open_checkpoint(checkpoint: Checkpoint, directory: Path) -> Model:
    """Write the random checkpoint, as the reference saw it, and load it."""
    write_random(directory, checkpoint.like, checkpoint.type, checkpoint.seed, **checkpoint.overrides)  # type: ignore[arg-type]
    config = load_config(directory)
    weights = load_weights(directory, config, torch.float32, torch.device("cpu"))
    return Model(directory, config, weights, load_tokenizer(directory))


@cache
def load_store(name: str) -> dict[str, np.ndarray]:
    with np.load(STORE / f"{name}.npz") as file:
        return dict(file)


def cases(checkpoint: Checkpoint) -> tuple[Case, ...]:
    return REAL_CASES if checkpoint is REAL else CASES[checkpoint.type]


def checkpoint_named(name: str) -> Checkpoint:
    return next(c for c in (*CHECKPOINTS, REAL) if c.name == name)


def sequence(model: Model, case: Case, index: int, stored: dict[str, np.ndarray], slot: int) -> Sequence:
    """Line `index` of a case as a sequence with all its text."""
    line, config = case.lines[index], model.config
    vector, icl, reference = _voice(line, config, stored, f"{case.name}/", index, model.tokenizer)
    voice = line.voice.lower()
    speaker = Speaker(control_id=config.speakers.get(voice), vector=vector)
    instruct = model.tokenizer.instruct(line.instruct) if line.instruct and config.supports_instruct else ()
    prompt = build_prompt(
        config,
        role=model.tokenizer.role(),
        instruct=instruct,
        language_id=language_id(config, line.language, voice or None),
        speaker=speaker,
        layout="whole" if case.layout == "whole" else "streaming",
        icl=icl,
    )
    script = Script(config, reference)
    script.feed(model.tokenizer.target(line.text))
    script.finish()
    terms = Terms(case.frames, 1024, None, 10_000, (1,), None, True, config.codec.eos, 1 / config.frame_rate_hz)
    return Sequence(Lease(slot, 1), prompt, script, GREEDY, vector, terms)


def _voice(
    line: Line, config: ModelConfig, stored: dict[str, np.ndarray], prefix: str, index: int, tokenizer: Tokenizer
) -> Any:
    if config.model_type != "base":
        return None, None, ()
    vector = tuple(stored[f"{prefix}vector{index}"].tolist())
    if not line.reference_frames:
        return vector, None, ()
    icl = tuple(map(tuple, stored[f"{prefix}reference{index}"].tolist()))
    return vector, icl, tokenizer.target(line.reference_text)


def speak(runner: TorchRunner, sequences: list[Sequence], together: bool = True) -> list[list[tuple[int, ...]]]:
    """Run the sequences to their ends, as one batch or one after the other; their frames."""
    allocator = PageAllocator(runner.page_count, runner.page_size)
    frames: dict[int, list[tuple[int, ...]]] = {id(s): [] for s in sequences}
    for group in [sequences] if together else [[s] for s in sequences]:
        running = list(group)
        while running:
            plan = plan_step(running)
            for s in plan.sequences:
                assert allocator.grow(s.pages, s.position + s.next_row_count())
            rows = [s.next_row_count() for s in plan.sequences]
            for s, codes, count in zip(plan.sequences, runner.execute(plan), rows, strict=True):
                s.advance(count)
                s.sampled(codes)
                packet = s.take_packet(pausing=True)
                frames[id(s)] += packet.codes if packet else ()
            for s in [s for s in running if s.end is not None]:
                allocator.release(s.pages)
                running.remove(s)
    return [frames[id(s)] for s in sequences]


def in_turn(runner: TorchRunner, mine: Sequence, other: Sequence) -> list[tuple[int, ...]]:
    """The frames of `mine`, which sits out two steps of three beside another one."""
    frames, allocator = [], PageAllocator(runner.page_count, runner.page_size)
    while mine.end is None:
        for one in (mine, other, other):
            if one.end is None:
                rows = one.next_row_count()
                allocator.grow(one.pages, one.position + rows)
                plan = StepPlan(steps=(one,)) if one.prefilled else StepPlan(prefills=(one,))
                codes = runner.execute(plan)[0]
                one.advance(rows)
                one.sampled(codes)
                frames += [codes] if one is mine else []
    return frames
