"""vLLM itself, with tiny models on CPU, behind the conformance suite. Needs its own environment: `tools/vllm/`."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

pytest.importorskip("vllm", reason="vLLM needs an environment of its own: tools/vllm/make_env.py")

import psutil
import pytest_asyncio
from tokenizers import Tokenizer

from services.brain.admission import BrainEngine
from services.brain.backends.vllm import VllmBackend
from services.brain.limits import BrainLimits
from services.brain.options import LocalOptions
from services.brain.types import BrainSampling, Ended, Message, Role, TextPiece, Transcript, TurnRequest
from tests.brain.conformance import Conformance
from tests.brain.home import Home, answer, begin, events_of, text_of, tone, until
from tests.brain.tiny_models import ANSWER

pytestmark = [pytest.mark.vllm, pytest.mark.asyncio(loop_scope="module")]
LIMITS = BrainLimits(slot_count=4, check_interval_s=0.5, first_delta_timeout_s=120)


@contextlib.asynccontextmanager
async def serving(model: Path) -> AsyncIterator[tuple[BrainEngine, VllmBackend]]:
    options = LocalOptions(
        str(model),
        local_files_only=True,
        max_model_tokens=4096,
        slot_count=4,
        extra={"enforce_eager": True, "max_num_batched_tokens": 4096, "disable_log_stats": False},
    )
    backend = VllmBackend(options)
    engine = BrainEngine(backend, LIMITS)
    await engine.start()
    try:
        yield engine, backend
    finally:
        await engine.close()


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=["text-chain", "omni-chain"])
async def served(request: pytest.FixtureRequest, models: Path) -> AsyncIterator[tuple[BrainEngine, VllmBackend]]:
    async with serving(models / request.param) as both:
        yield both


@pytest_asyncio.fixture(loop_scope="module")
async def home(served: tuple[BrainEngine, VllmBackend]) -> Home:
    engine, _ = served

    # found beforehand: the search takes longer than a tiny model's whole answer
    children = psutil.Process().children(recursive=True)
    cores = [child for child in children if "EngineCore" in child.name() + "".join(child.cmdline())]

    async def kill() -> None:
        for core in cores:
            core.kill()

    async def revive() -> None:
        """It comes back by itself."""

    return Home(engine, ask="hello", call="hello", kill=kill, revive=revive)


class TestVllm(Conformance):
    async def test_it_says_what_the_weights_say_with_its_ids(self, home: Home, models: Path) -> None:
        events = await events_of(begin(home.engine, "hello"))
        tokenizer = Tokenizer.from_file(str(models / "text-chain" / "tokenizer.json"))
        pieces = [event for event in events if isinstance(event, TextPiece)]
        assert text_of(events) == ANSWER
        assert [index for piece in pieces for index in piece.ids] == tokenizer.encode(ANSWER).ids

    async def test_a_cancel_leaves_nothing_running_in_the_engine(self, served: tuple[BrainEngine, VllmBackend]) -> None:
        engine, backend = served
        turn = begin(engine, "hello")
        async for event in turn:
            if isinstance(event, TextPiece):
                assert backend.unfinished_count >= 1
                begun = time.monotonic()
                turn.cancel()
        assert isinstance(event, Ended)
        assert time.monotonic() - begun < 0.1
        async with asyncio.timeout(1):
            await until(lambda: backend.unfinished_count == 0)

    async def test_the_second_turn_finds_the_first_one_in_the_prefix_cache(
        self, served: tuple[BrainEngine, VllmBackend]
    ) -> None:
        engine, _ = served
        first = "hello " * 400
        said, _ = await answer(engine, first)
        history = (Message(Role.USER, first), Message(Role.ASSISTANT, said))
        _, end = await answer(engine, "hello", TurnRequest(history=history))
        assert end.cached_token_count >= 128
        assert end.cached_token_count < end.prompt_token_count

    async def test_what_precedes_the_words_is_prefilled_while_the_person_speaks(
        self, served: tuple[BrainEngine, VllmBackend]
    ) -> None:
        engine, backend = served
        history = (Message(Role.USER, "the person says " * 200), Message(Role.ASSISTANT, "hello"))
        turn = engine.submit(TurnRequest(history=history))
        await until(lambda: backend.unfinished_count > 0)
        await until(lambda: backend.unfinished_count == 0)
        turn.feed_text("hello")
        turn.finish()
        end = (await events_of(turn))[-1]
        assert isinstance(end, Ended)
        assert end.cached_token_count >= 128

    async def test_audio_and_its_transcript(self, served: tuple[BrainEngine, VllmBackend]) -> None:
        engine, _ = served
        if not engine.info().hears_audio:
            pytest.skip("this model hears nothing")
        earlier = (Message(Role.USER, audio=tone(1)), Message(Role.ASSISTANT, "hello"))
        events = await events_of(begin(engine, tone(2), TurnRequest(want_transcript=True)))
        assert text_of(events) == ANSWER
        assert [event for event in events if isinstance(event, Transcript)] == [Transcript(ANSWER.strip(), True)]
        _, alone = await answer(engine, tone(2))
        _, after = await answer(engine, tone(2), TurnRequest(history=earlier))
        assert after.prompt_token_count - alone.prompt_token_count > 13


async def test_random_weights_hear_differences_and_repeat_with_their_seed(models: Path) -> None:
    greedy = TurnRequest(sampling=BrainSampling(temperature=0, max_tokens=24))
    seeds = [TurnRequest(sampling=BrainSampling(temperature=2.0, top_p=1.0, max_tokens=16, seed=n)) for n in (7, 8)]
    async with serving(models / "omni") as (engine, _):
        low, high, again = [(await answer(engine, tone(2, hz), greedy))[0] for hz in (200, 3000, 200)]
        seven, eight, seven_again = [(await answer(engine, "hello", seeds[n]))[0] for n in (0, 1, 0)]
    assert low == again != high
    assert seven == seven_again != eight
