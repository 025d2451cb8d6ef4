"""The loop's order of work: the device is never kept waiting by what others are told, and a stop takes one step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch

from common.stream import FinishReason
from services.tts_lm.commands import Begin, Cancel, Done, Frames
from services.tts_lm.loop import Loop
from services.tts_lm.model.config import load_config
from services.tts_lm.model.tokenizer import load_tokenizer
from services.tts_lm.model.weights import load_weights
from services.tts_lm.scheduler import StepPlan
from tests.tts_lm.stored import Case, Line, Model, sequence

CASE = Case("two", (Line("Hello world. " * 9, "English", "ryan"), Line("Yes. " * 9, "English", "ryan")), frames=40)


class Scripted:
    """A device that says the same code for ever, and writes down what it was asked."""

    page_count, page_size = 64, 16

    def __init__(self) -> None:
        self.history: list[str] = []

    def launch(self, plan: StepPlan) -> Callable[[], list[tuple[int, ...]]]:
        self.history.append(f"launch {len(plan.sequences)}")
        return lambda: self._collect(plan)

    def _collect(self, plan: StepPlan) -> list[tuple[int, ...]]:
        self.history.append("collect")
        return [(1,) * 16 for _ in plan.sequences]

    def publish(self, events: Sequence[Frames | Done]) -> None:
        told = [f"frames {e.sequence.slot}" if isinstance(e, Frames) else f"done {e.reason.name}" for e in events]
        self.history.append(", ".join(told))


@pytest.fixture(scope="module")
def model(tiny: Path) -> Model:
    config = load_config(tiny)
    return Model(tiny, config, load_weights(tiny, config, torch.float32, torch.device("cpu")), load_tokenizer(tiny))


def test_frames_go_out_while_the_device_runs_the_next_step(model: Model) -> None:
    device = Scripted()
    loop = Loop(device, device.publish)
    loop.commands.put(Begin(sequence(model, CASE, 0, {}, 0), loop.now_s()))
    for _ in range(3):
        loop.turn()
    step = ["launch 1", "frames 0", "collect"]
    assert device.history == ["launch 1", "collect", *step, *step]


def test_a_stop_frees_slot_and_pages_before_the_next_step_ends(model: Model) -> None:
    device = Scripted()
    loop = Loop(device, device.publish)
    both = [sequence(model, CASE, index, {}, index) for index in range(2)]
    for one in both:
        loop.commands.put(Begin(one, loop.now_s()))
    loop.turn()
    held = loop.free_page_count
    loop.commands.put(Cancel(both[0]))
    loop.turn()
    assert device.history[-3:] == ["launch 1", f"frames 0, frames 1, done {FinishReason.CANCELLED.name}", "collect"]
    assert loop.free_page_count > held


def test_what_the_last_step_gave_goes_out_when_no_step_follows(model: Model) -> None:
    device = Scripted()
    loop = Loop(device, device.publish)
    one = sequence(model, CASE, 0, {}, 0)
    loop.commands.put(Begin(one, loop.now_s()))
    loop.turn()
    one.credit = one.produced_count
    loop.commands.put(Cancel(one))
    loop.turn()
    assert device.history == ["launch 1", "collect", "frames 0, done CANCELLED"]
