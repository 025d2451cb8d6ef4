"""The engine over a real runner: many utterances, nothing left behind, nobody starved."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from cli.checkpoint.random import write_random
from common.errors import InvalidRequest, MeshError, NotReady, OutOfOrder, Overloaded
from common.observer import NOBODY
from common.stream import FinishReason
from services.tts_lm.engine import (
    Ended,
    EngineOptions,
    FrameBatch,
    OpenModel,
    ResumePoint,
    SamplingParams,
    Started,
    TalkerEngine,
    UtteranceRequest,
)
from services.tts_lm.load import open_model
from services.tts_lm.scheduler import StepPlan
from tests.tts_lm.conftest import running


@pytest.fixture(scope="module")
def smallest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One layer and two codebooks: for tests of many frames, whose steps should cost little."""
    overrides = {
        "talker_config": {"num_hidden_layers": 1, "num_code_groups": 2},
        "code_predictor_config": {"num_hidden_layers": 1},
    }
    return write_random(tmp_path_factory.mktemp("smallest"), "tiny", "custom_voice", 0, **overrides)


async def say(engine: TalkerEngine, text: str, **fields: Any) -> tuple[list[tuple[int, ...]], Ended]:
    utterance = engine.submit(UtteranceRequest(**fields))
    utterance.feed(text)
    utterance.flush()
    codes: list[tuple[int, ...]] = []
    async for event in utterance:
        if isinstance(event, FrameBatch):
            codes += event.codes
        elif isinstance(event, Ended):
            return codes, event
    raise AssertionError("no end")


@pytest.mark.timeout(120)
async def test_ten_thousand_utterances_leave_nothing_behind(smallest: Path) -> None:
    """Started and cancelled at every stage: before text, before the first frame, after some, or never (a few speak
    out).
    """
    process = psutil.Process()
    async with running(smallest, slot_count=4) as engine:
        loop = engine._loop
        assert loop is not None
        pages = loop.free_page_count

        async def one(i: int) -> None:
            utterance = engine.submit(UtteranceRequest(sampling=SamplingParams(seed=i)))
            if i % 5:
                utterance.feed("Hello world. ")
            frames = 0
            if i % 50 == 0:
                utterance.cancel()
            async for event in utterance:
                frames += isinstance(event, FrameBatch)
                if (
                    (isinstance(event, Started) and i % 3 == 0)
                    or isinstance(event, FrameBatch)
                    or (isinstance(event, Started) and not i % 5)
                ):
                    utterance.cancel()
                elif isinstance(event, Ended):
                    assert event.reason is FinishReason.CANCELLED

        async def many(count: int, first: int) -> None:
            for i in range(first, first + count, 4):
                await asyncio.gather(*(one(i + k) for k in range(4)))

        await many(2000, 0)
        gc.collect()
        before = process.memory_info().rss
        await many(8000, 2000)
        gc.collect()
        grown = process.memory_info().rss - before

        assert engine.info().free_slot_count == 4
        assert loop.free_page_count == pages
        assert not engine._live
        assert not loop._live
        assert grown < 8 * 2**20  # an utterance that left 1 kB behind would show as 8 MB


class Steps(type(NOBODY)):  # type: ignore[misc]
    """Seconds of every step, and the memory of the process beside them."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.memory: list[int] = []

    def step(self, duration_s: float, batch_size: int) -> None:
        self.seconds.append(duration_s)
        self.memory.append(psutil.Process().memory_info().rss)


@pytest.mark.timeout(120)
async def test_a_frame_after_ten_minutes_costs_less_than_three_early_ones(smallest: Path) -> None:
    """7 500 frames of the smallest model, whose attention is a far larger part of a step than in the real ones: it may
    show, but not as the sixfold cost of re-reading everything, and memory must not move."""
    steps = Steps()
    options = EngineOptions(str(smallest), slot_count=1, kv_positions=8192)
    engine = TalkerEngine(lambda: open_model(options), options, steps)
    await engine.start()
    utterance = engine.submit(UtteranceRequest(max_frames=7500, packet_ramp=(100,)))
    utterance.feed([400] * 7600)  # end of speech stays masked while text is still to come

    ended = [event async for event in utterance][-1]
    await engine.close()

    assert isinstance(ended, Ended)
    assert (ended.reason, ended.frame_count) == (FinishReason.LENGTH, 7500)
    early, late = sorted(steps.seconds[750:1500]), sorted(steps.seconds[-750:])
    assert late[375] < 3 * early[375]
    assert steps.memory[-1] - steps.memory[750] < 8 * 2**20


async def test_the_event_loop_answers_while_the_device_works(tiny: Path) -> None:
    """The engine's thread and the event loop share one interpreter: neither may keep it."""
    async with running(tiny, slot_count=4) as engine:
        seeds = map(SamplingParams, range(4))
        lines = [asyncio.ensure_future(say(engine, "Hello world. " * 8, sampling=seed)) for seed in seeds]
        waits: list[float] = []
        while not all(line.done() for line in lines):
            began = time.perf_counter()
            await asyncio.sleep(0)
            waits.append(time.perf_counter() - began)
        waits.sort()
        assert waits[len(waits) // 2] < 0.005


class Failing:
    """A runner whose device fails at its third step."""

    page_count, page_size = 64, 64

    def __init__(self) -> None:
        self.steps = 0

    def launch(self, plan: StepPlan) -> Callable[[], list[tuple[int, ...]]]:
        return lambda: self.frames(plan)

    def frames(self, plan: StepPlan) -> list[tuple[int, ...]]:
        self.steps += bool(plan.sequences)
        if self.steps == 3:
            raise RuntimeError("device-side assert")
        return [(1,) * 16 for _ in plan.sequences]


class Roomless(Failing):
    """A pool of two pages: one utterance fills one, the next needs more than is left."""

    page_count, page_size = 2, 16

    def __init__(self) -> None:
        super().__init__()
        self.everyone_is_here = threading.Event()

    def frames(self, plan: StepPlan) -> list[tuple[int, ...]]:
        assert self.everyone_is_here.wait(10)
        return [(1,) * 16 for _ in plan.sequences]


def over(runner: Any, tiny: Path, slots: int = 2) -> TalkerEngine:
    real = open_model(EngineOptions(str(tiny), slot_count=slots, kv_positions=256))
    model = OpenModel(real.config, real.tokenizer, runner, "scripted", "float32", "cpu", 4096)
    return TalkerEngine(lambda: model, EngineOptions(str(tiny), slot_count=slots))


async def test_a_device_that_fails_ends_everyone_and_serves_no_more(tiny: Path) -> None:
    engine, told = over(Failing(), tiny), list[str]()
    engine.on_broken = told.append
    await engine.start()
    ends = await asyncio.gather(say(engine, "Hello world. " * 9), say(engine, "Good morning. " * 9))
    assert [end.reason for _, end in ends] == [FinishReason.FAILED] * 2
    assert all("device-side assert" in str(end.error) for _, end in ends)
    assert engine._slots.free_count == 2
    await asyncio.sleep(0)
    with pytest.raises(NotReady, match="no longer serves"):
        engine.submit(UtteranceRequest())
    assert len(told) == 1
    assert "device-side assert" in told[0]
    await engine.close()


async def test_when_memory_runs_out_the_latest_gives_way_and_the_other_finishes(tiny: Path) -> None:
    runner = Roomless()
    engine = over(runner, tiny)
    await engine.start()
    first = asyncio.ensure_future(say(engine, "Hello world. " * 2, max_frames=12, reference_behaviour=True))
    await asyncio.sleep(0)
    second = asyncio.ensure_future(say(engine, "Hello world. " * 2, max_frames=12, reference_behaviour=True))
    await asyncio.sleep(0)
    runner.everyone_is_here.set()
    (codes, end), (_, other) = await asyncio.gather(first, second)
    assert (end.reason, len(codes)) == (FinishReason.LENGTH, 12)
    assert other.reason is FinishReason.FAILED
    assert isinstance(other.error, Overloaded)
    await engine.close()


async def test_a_reader_that_stops_reading_stops_its_own_row_only(tiny: Path) -> None:
    async with running(tiny, slot_count=2, unread_frame_limit=8) as engine:
        slow = engine.submit(UtteranceRequest(reference_behaviour=True, sampling=SamplingParams(seed=0)))
        slow.feed("Hello world. " * 10)
        codes, _ = await say(engine, "Good morning to you all. " * 3)
        assert len(codes) > 8
        sequence = slow.sequence  # type: ignore[attr-defined]
        assert sequence.end is not None or sequence.frame_count <= 8
        slow.cancel()
        assert [type(event) async for event in slow][-1] is Ended


async def test_faults_of_the_writer_are_raised_where_they_are_made(tiny: Path) -> None:
    async with running(tiny) as engine:
        utterance = engine.submit(UtteranceRequest())
        with pytest.raises(InvalidRequest):
            utterance.credit(-1)
        utterance.feed("Hello")
        with pytest.raises(InvalidRequest):
            utterance.feed([1])
        utterance.flush()
        utterance.flush()
        with pytest.raises(OutOfOrder):
            utterance.feed(" world")
        utterance.cancel()
        utterance.cancel()
        events = [event async for event in utterance]
        assert isinstance(events[-1], Ended)
        assert sum(isinstance(event, Ended) for event in events) == 1


async def test_nothing_is_served_before_start_or_after_close(tiny: Path) -> None:
    async with running(tiny) as engine:
        utterance = engine.submit(UtteranceRequest())
    events = [event async for event in utterance]
    assert isinstance(events[-1], Ended)
    assert events[-1].reason is FinishReason.CANCELLED
    with pytest.raises(NotReady):
        engine.submit(UtteranceRequest())
    with pytest.raises(NotReady):
        TalkerEngine(lambda: open_model(EngineOptions(str(tiny))), EngineOptions(str(tiny))).submit(UtteranceRequest())


async def test_a_checkpoint_that_is_refused_is_told_by_start(tmp_path: Path) -> None:
    engine = TalkerEngine(lambda: open_model(EngineOptions(str(tmp_path))), EngineOptions(str(tmp_path)))
    with pytest.raises(MeshError, match=r"config\.json is missing"):
        await engine.start()
    await engine.close()


async def test_a_limit_counts_what_is_delivered_and_the_models_own_all_there_is(tiny: Path) -> None:
    resumed = ResumePoint((1,) * 64)
    async with running(tiny) as engine:
        codes, end = await say(engine, "Yes. " * 30, resume=resumed, max_frames=4)
        assert (len(codes), end.frame_count) == (4, 4)
    async with running(tiny, kv_positions=256, max_positions=64) as engine:
        codes, end = await say(engine, "Yes. " * 30, resume=resumed)
        assert end.reason is FinishReason.LENGTH
        assert len(codes) < 60
