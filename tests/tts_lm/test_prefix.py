"""What prompts begin with is computed once: the same codes, counted, bounded, given back, and never somebody else's."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cli.checkpoint.random import write_random
from common.observer import NOBODY
from common.stream import FinishReason
from services.tts_lm.engine import (
    CloneVoice,
    Ended,
    EngineOptions,
    FrameBatch,
    ResumePoint,
    SamplingParams,
    Started,
    TalkerEngine,
    UtteranceRequest,
)
from services.tts_lm.load import open_model
from services.tts_lm.model.prompt import Prompt, PromptRow
from services.tts_lm.pages import PageAllocator
from services.tts_lm.prefix import Prefix, PrefixCache, prefix_of
from services.tts_lm.types import Kernels
from tests.tts_lm.conftest import on_both, running

LONG_INSTRUCT = "Speak slowly and softly, as if it were very late and somebody slept next door. " * 3
TEXT = "Hello world. How are you today?"
Said = tuple[bool, list[tuple[int, ...]], Ended]


async def say(engine: TalkerEngine, text: str = TEXT, **fields: Any) -> Said:
    """Whether it began like one before, its frames, its end."""
    request = UtteranceRequest(**{"sampling": SamplingParams(seed=5), "max_frames": 24} | fields)
    utterance = engine.submit(request)
    utterance.feed(text)
    utterance.flush()
    events = [event async for event in utterance]
    assert isinstance(events[0], Started)
    assert isinstance(events[-1], Ended)
    return events[0].prefix_cache_hit, [f for e in events if isinstance(e, FrameBatch) for f in e.codes], events[-1]


def clone(frame_count: int, seed: int, text: str = "Good morning to you.") -> CloneVoice:
    generator = random.Random(seed)
    vector = tuple(generator.uniform(-1, 1) for _ in range(64))
    return CloneVoice(vector, tuple(generator.randrange(64) for _ in range(frame_count * 16)), text)


@pytest.fixture(scope="module")
def custom(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_random(tmp_path_factory.mktemp("custom"), "tiny", "custom_voice", 3, tts_model_size="1b7")


CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "a preset voice": ("custom", {"voice": "ryan"}),
    "a preset voice and a language": ("custom", {"voice": "ryan", "language": "english", "layout": "whole"}),
    "an instruction of more than a page": ("custom", {"instruct": LONG_INSTRUCT}),
    "speech resumed": ("custom", {"instruct": LONG_INSTRUCT, "resume": ResumePoint(tuple(range(16)) * 5)}),
    "a vector alone": ("base", {"voice": replace(clone(0, 1), codes=(), reference_text="")}),
    "a reference shorter than its text": ("base", {"voice": clone(3, 2, LONG_INSTRUCT)}),
    "a reference longer than its text": ("base", {"voice": clone(90, 3)}),
    "a reference of two pages, all text first": ("base", {"voice": clone(150, 4, LONG_INSTRUCT), "layout": "whole"}),
}


@on_both
@pytest.mark.parametrize("deterministic", [True, False])
async def test_codes_are_the_same_found_or_computed_or_never_kept(
    custom: Path, tiny_base: Path, deterministic: bool, kernels: Kernels
) -> None:
    models = {"custom": custom, "base": tiny_base}
    for kind, model in models.items():
        fields = {name: given for name, (of, given) in CASES.items() if of == kind}
        options = {"deterministic": deterministic, "kernels": kernels}
        async with running(model, **options, prefix_positions=0) as engine:
            expected = {name: (await say(engine, **given))[1] for name, given in fields.items()}
        async with running(model, **options) as engine:
            for name, given in fields.items():
                first, second = await say(engine, **given), await say(engine, **given)
                assert second[0], name
                assert first[1] == second[1] == expected[name] != [], name


async def test_one_that_is_new_is_told_from_one_that_is_not(custom: Path) -> None:
    class Counting(type(NOBODY)):  # type: ignore[misc]
        hits: list[bool] = []  # noqa: RUF012

        def prefix(self, hit: bool) -> None:
            self.hits.append(hit)

    options = EngineOptions(str(custom), slot_count=2, kv_positions=4096)
    engine = TalkerEngine(lambda: open_model(options), options, Counting())
    await engine.start()
    told = [
        (await say(engine, **fields))[0]
        for fields in (
            {"voice": "ryan"},  # every preset voice is computed before READY
            {"voice": "vivian"},
            {"voice": "ryan", "language": "english"},
            {"voice": "ryan", "language": "english", "layout": "whole"},
            {"instruct": "Whisper."},
            {"instruct": "Whisper."},
        )
    ]
    await engine.close()
    assert told == [True, True, False, True, False, True] == Counting.hits


async def test_a_voice_that_was_replaced_is_never_heard_again(tiny_base: Path) -> None:
    """A clone is known by what it is, not by what somebody calls it."""
    before, after = clone(70, 1), clone(70, 2)
    async with running(tiny_base) as engine:
        first = await say(engine, voice=before)
        other = await say(engine, voice=after)
        again = await say(engine, voice=before)
    assert (first[0], other[0], again[0]) == (False, False, True)
    assert first[1] == again[1] != other[1]


async def test_what_is_kept_gives_way_before_anybody_is_refused(tiny_base: Path) -> None:
    """A pool of six pages, four of them for prefixes; a long utterance needs those that they hold."""
    async with running(tiny_base, slot_count=2, kv_positions=6 * 64, prefix_positions=4 * 64) as engine:
        loop = engine._loop
        assert loop is not None
        for seed in range(5):
            assert (await say(engine, voice=clone(3, seed, LONG_INSTRUCT), layout="whole"))[2].error is None
        assert 3 <= loop.prefixes.page_count <= 4
        long = await say(engine, [400] * 250, voice=clone(3, 0, "Yes."), max_frames=200)  # type: ignore[arg-type]
        assert (long[2].reason, len(long[1])) == (FinishReason.LENGTH, 200)
        assert loop.free_page_count == 6


async def test_two_who_begin_alike_at_once_compute_it_once(tiny_base: Path) -> None:
    async with running(tiny_base) as engine:
        loop = engine._loop
        assert loop is not None
        voice = clone(70, 1)
        utterances = [engine.submit(UtteranceRequest(voice=voice, max_frames=4)) for _ in range(2)]
        for utterance in utterances:
            utterance.feed(TEXT)
            utterance.flush()
        for utterance in utterances:
            assert isinstance([event async for event in utterance][-1], Ended)
        assert loop.prefixes.page_count == 1


def prefix(length: int, name: int = 0) -> Prefix:
    head = tuple(PromptRow(name) for _ in range(length))
    return prefix_of(Prompt(head, "streaming", None, (), 1, 2, 3), (), None)


@settings(max_examples=80, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 8), st.integers(0, 3)), max_size=60), st.integers(0, 6))
def test_the_cache_stays_within_its_bound_and_keeps_what_is_in_use(asked: list[tuple[int, int]], limit: int) -> None:
    allocator = PageAllocator(8, 4)
    cache = PrefixCache(allocator, limit)
    pinned: dict[bytes, Any] = {}
    for name, what in asked:
        entry = cache.find(prefix(1 + 2 * name, name))
        if entry is None:
            assert name or limit == 0 or pinned  # the smallest fits wherever anything is free to go
        elif what == 0:
            entry.pins = 1
            pinned[entry.key] = entry
        elif what == 1 and entry.key in pinned:
            pinned.pop(entry.key).pins = 0
        elif what == 2:
            cache.make_room(name)
        assert cache.page_count <= limit
        assert allocator.free_count == 8 - cache.page_count
        assert all(cache.holds(key) for key in pinned)
    for entry in pinned.values():
        entry.pins = 0
    assert cache.make_room(8)
    assert cache.page_count == 0


def test_the_least_recently_used_goes_first() -> None:
    cache = PrefixCache(PageAllocator(8, 4), 2)
    for name in (1, 2, 1, 3):
        cache.find(prefix(4, name))
    assert [cache.holds(prefix(4, name).key) for name in (1, 2, 3)] == [True, False, True]


def test_no_two_beginnings_have_one_key() -> None:
    rows = [
        (PromptRow(1), PromptRow(2)),
        (PromptRow(2), PromptRow(1)),
        (PromptRow(1, 2),),
        (PromptRow(1, (2,)),),
        (PromptRow(1, "speaker"),),
        (PromptRow(1, (2, 3)), PromptRow(4)),
        (PromptRow(1, (2,)), PromptRow(3, 4)),
    ]
    prompts = [Prompt(head, "streaming", None, (), 1, 2, 3) for head in rows]
    keys = {prefix_of(prompt, (), vector).key for prompt in prompts for vector in (None, (0.5,), (0.25,))}
    assert len(keys) == 3 * len(rows)
