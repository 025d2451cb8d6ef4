"""The offline brain's ears: phrases are understood, everything else is refused, and nobody else has to wait."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
import weakref
from collections.abc import AsyncIterator

import numpy as np
import pytest

from common.errors import NotReady
from services.brain.admission import BrainEngine
from services.brain.audio import whole
from services.brain.backends.offline import OfflineBackend
from services.brain.offline import hearing
from services.brain.offline.hearing import Ears, Heard
from services.brain.offline.talk import NOT_UNDERSTOOD
from services.brain.options import OfflineOptions
from services.brain.types import AudioFormat, TextPiece, Transcript, TurnRequest
from tests.brain.home import answer, begin, events_of, speech, text_of, until

PHRASES = {
    "hello": "hello",
    "good_morning": "good morning",
    "sum": "what is twelve plus thirty one",
    "hundreds": "seven hundred and five times three",
    "count": "count to twenty five",
    "story": "tell me a long story",
    "time": "what time is it",
    "help": "what can you do",
    "repeat": "repeat after me the sun is shining",
    "spell": "spell banana",
}


@pytest.fixture
async def ears() -> AsyncIterator[Ears]:
    running = Ears()
    await running.start()
    yield running
    running.close()


@pytest.fixture
async def engine() -> AsyncIterator[BrainEngine]:
    running = BrainEngine(OfflineBackend(OfflineOptions(tokens_per_s=0)))
    await running.start()
    yield running
    await running.close()


async def heard(ears: Ears, pcm: bytes, block: int = 320) -> Heard:
    listener = ears.listen()
    samples = whole(AudioFormat(), pcm)
    for at in range(0, samples.size, block):
        listener.hear(samples[at : at + block])
    return await listener.result()


@pytest.mark.parametrize("name", PHRASES)
async def test_a_phrase_is_understood(ears: Ears, name: str) -> None:
    assert await heard(ears, speech(name)) == Heard(PHRASES[name], loud=True)


@pytest.mark.parametrize("name", ["other_weather", "other_fox"])
async def test_speech_that_is_no_phrase_is_refused(ears: Ears, name: str) -> None:
    assert await heard(ears, speech(name)) == Heard("", loud=True)


async def test_silence_is_nothing(ears: Ears) -> None:
    assert await heard(ears, bytes(32000)) == Heard("", loud=False)
    assert await ears.listen().result() == Heard("", loud=False)


async def test_what_is_understood_does_not_depend_on_blocks_or_on_who_spoke_before(ears: Ears) -> None:
    results = [await heard(ears, speech("sum"), block) for block in (160, 999, 100_000)]
    await heard(ears, speech("other_fox"))
    quiet = (np.frombuffer(speech("sum"), "<i2") // 2).astype("<i2").tobytes()
    assert {*results, await heard(ears, speech("sum")), await heard(ears, quiet)} == {results[0]}


async def test_several_people_are_heard_at_once() -> None:
    ears = Ears(4)
    await ears.start()
    names = ["sum", "time", "story", "count"]
    results = await asyncio.gather(*(heard(ears, speech(name)) for name in names))
    assert [result.text for result in results] == [PHRASES[name] for name in names]
    ears.close()


async def test_who_has_finished_does_not_wait_for_who_came_before_and_goes_on(ears: Ears) -> None:
    first, second, third = (ears.listen() for _ in range(3))
    for listener in (first, second, third):
        listener.hear(whole(AudioFormat(), speech("sum")))
    done = asyncio.create_task(third.result())
    await asyncio.sleep(0.1)
    first.close()  # gives its decoder back: to the third, not to the second, who still speaks
    assert (await asyncio.wait_for(done, 10)).text == PHRASES["sum"]
    assert (await second.result()).text == PHRASES["sum"]


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """One entry for each decoder."""
    makes, seen = hearing._new_decoder, []
    monkeypatch.setattr(hearing, "_new_decoder", lambda path: seen.append(path) or makes(path))
    return seen


async def test_more_people_than_decoders_are_heard_one_after_another(made: list[str]) -> None:
    """Memory is taken at the start: 19 MB that a turn asks for stay taken."""
    ears = Ears(2)
    await ears.start()
    assert len(made) == 2
    names = ["sum", "time", "story", "count", "hello"]
    results = await asyncio.gather(*(heard(ears, speech(name)) for name in names))
    assert [result.text for result in results] == [PHRASES[name] for name in names]
    assert len(made) == 2
    ears.close()


async def test_who_waits_for_a_decoder_may_leave(ears: Ears) -> None:
    first, second, third = (ears.listen() for _ in range(3))
    for listener in (first, second, third):
        listener.hear(whole(AudioFormat(), speech("hello")))
    answer = asyncio.ensure_future(second.result())
    await asyncio.sleep(0)
    second.close()
    assert await asyncio.wait_for(answer, 60) == Heard("", loud=False)
    first.close()
    assert (await asyncio.wait_for(third.result(), 60)).text == "hello"


async def test_what_takes_too_long_to_be_a_phrase_gives_its_decoder_to_the_next(ears: Ears) -> None:
    endless = ears.listen()
    endless.hear(np.zeros(21 * 16000, np.float32))
    assert (await asyncio.wait_for(heard(ears, speech("hello")), 60)).text == "hello"
    endless.hear(whole(AudioFormat(), speech("hello")))
    assert await endless.result() == Heard("", loud=True)


async def test_what_comes_late_after_a_long_silence_was_there_to_be_understood(ears: Ears) -> None:
    listener = ears.listen()
    listener.hear(np.zeros(30 * 16000, np.float32))
    listener.hear(whole(AudioFormat(), speech("hello")))
    assert await listener.result() == Heard("", loud=True)


async def test_who_is_not_listened_to_any_more_costs_nothing(ears: Ears) -> None:
    """However far behind the recogniser is: nobody is understood for nobody."""
    behind = threading.Event()
    ears.do(lambda: bool(behind.wait()))
    listeners = [ears.listen() for _ in range(3)]
    for listener in listeners:
        listener.hear(np.zeros(16000, np.float32))
    for listener in listeners:
        listener.close()
    behind.set()
    assert (await heard(ears, speech("hello"))).text == "hello"
    assert [listener._state.slice_count for listener in listeners] == [0, 0, 0]


async def test_the_loop_goes_on_while_somebody_is_heard(ears: Ears) -> None:
    task = asyncio.ensure_future(heard(ears, speech("other_fox") * 3))
    late = []
    while not task.done():
        begun = time.monotonic()
        await asyncio.sleep(0)
        late.append(time.monotonic() - begun)
    assert len(late) > 50
    assert sorted(late)[int(len(late) * 0.9)] < 0.02


async def test_words_are_told_while_the_person_still_speaks(engine: BrainEngine) -> None:
    events = await events_of(begin(engine, speech("repeat"), TurnRequest(want_transcript=True)))
    transcripts = [event for event in events if isinstance(event, Transcript)]
    assert transcripts[-1] == Transcript(PHRASES["repeat"], True)
    assert len(transcripts) > 1
    assert not any(transcript.final for transcript in transcripts[:-1])
    assert text_of(events) == "the sun is shining"


@pytest.mark.parametrize("words_before", [None, 0, 2])
async def test_a_turn_that_was_cancelled_is_gone_without_the_collector(words_before: int | None) -> None:
    """Cancelled while it listens, before the first word of its answer and in the middle of it."""
    engine = BrainEngine(OfflineBackend(OfflineOptions(tokens_per_s=20, listeners=1)))
    await engine.start()
    gc.collect()
    gc.disable()
    try:
        turn = engine.submit(TurnRequest(want_transcript=True))
        turn.feed_audio(speech("story"))
        if words_before is not None:
            turn.finish()
        said = 0
        async for event in turn:
            said += isinstance(event, TextPiece)
            if words_before is None or said == words_before:
                break
        gone = weakref.ref(turn)
        turn.cancel()
        del turn
        await asyncio.wait_for(until(lambda: gone() is None), 10)
    finally:
        gc.enable()
        await engine.close()


async def test_a_spoken_sum_is_answered(engine: BrainEngine) -> None:
    assert (await answer(engine, speech("sum")))[0] == "That is forty three."


async def test_strange_speech_gets_an_answer_and_silence_gets_none(engine: BrainEngine) -> None:
    assert (await answer(engine, speech("other_weather")))[0] == NOT_UNDERSTOOD
    assert (await answer(engine, bytes(32000)))[0] == ""


async def test_a_recogniser_that_died_says_so_and_is_started_again(engine: BrainEngine) -> None:
    backend = engine._backend
    assert isinstance(backend, OfflineBackend)
    listener = backend._ears.listen()
    listener.hear(np.zeros(320, np.float32))
    backend._ears.close()
    await until(lambda: not backend._ears.alive)
    with pytest.raises(NotReady):
        await listener.result()
    await backend.check()
    assert (await answer(engine, speech("sum")))[0] == "That is forty three."
