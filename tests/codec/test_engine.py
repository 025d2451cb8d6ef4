"""The engine as its edge drives it: many utterances, any order of events, exact sound."""

from __future__ import annotations

import asyncio
import random
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from common.errors import InvalidRequest, NotReady, OutOfOrder, Overloaded
from common.stream import FinishReason
from services.codec.engine import AudioBatch, CodecEngine, DecodeSpec, Encoding, Ended, EngineSettings
from services.codec.model.decoder import Decoder
from tests.codec.hearing import FRAME, listen, random_codes, say, whole

F32 = DecodeSpec(encoding=Encoding.PCM_F32LE)


async def test_an_utterance_sounds_like_its_undivided_decode(engine: CodecEngine, tiny_decoder: Decoder) -> None:
    codes = random_codes(23)
    heard = await say(engine.submit(F32), codes, (1, 2, 4))
    assert heard.ended.reason is FinishReason.COMPLETED
    assert heard.ended.frame_count == 23
    assert heard.ended.time_to_first_s > 0
    np.testing.assert_allclose(heard.f32, whole(tiny_decoder, codes), atol=1e-4)


async def test_utterances_side_by_side_do_not_hear_each_other(engine: CodecEngine, tiny_decoder: Decoder) -> None:
    spoken = [random_codes(count, seed=count) for count in (3, 17, 8, 29)]
    heard = await asyncio.gather(*(say(engine.submit(F32), codes, (i + 1,)) for i, codes in enumerate(spoken)))
    for codes, one in zip(spoken, heard, strict=True):
        np.testing.assert_allclose(one.f32, whole(tiny_decoder, codes), atol=1e-4)


async def test_a_slot_used_again_starts_from_nothing(engine: CodecEngine) -> None:
    codes = random_codes(6)
    first = (await say(engine.submit(F32), codes)).payload
    for seed in range(5):
        await say(engine.submit(F32), random_codes(9, seed))
    assert (await say(engine.submit(F32), codes)).payload == first


async def test_no_frames_and_flush_end_completed_without_sound(engine: CodecEngine) -> None:
    heard = await say(engine.submit(DecodeSpec()), ())
    assert (heard.ended.reason, heard.ended.sample_count, heard.batches) == (FinishReason.COMPLETED, 0, [])


async def test_a_continued_utterance_keeps_the_state(engine: CodecEngine, tiny_decoder: Decoder) -> None:
    codes = random_codes(20)
    before = engine.submit(F32)
    after = engine.submit(DecodeSpec(encoding=Encoding.PCM_F32LE, continue_from=before))
    assert engine.info().free_slot_count == 3
    heard = await asyncio.gather(say(after, codes[11:], (3,)), say(before, codes[:11]))
    assert heard[0].batches[0].first_sample_offset == 0
    np.testing.assert_allclose(np.concatenate([heard[1].f32, heard[0].f32]), whole(tiny_decoder, codes), atol=1e-4)
    assert engine.info().free_slot_count == 4


async def test_an_ended_utterance_can_be_continued_after_its_slot_was_used(
    engine: CodecEngine, tiny_decoder: Decoder
) -> None:
    codes = random_codes(12)
    before = engine.submit(F32)
    first = await say(before, codes[:5])
    for seed in range(4):  # every slot, all cancelled so that none is parked over ours
        other = engine.submit(F32)
        other.feed(random_codes(3, seed))
        await anext(e async for e in other if isinstance(e, AudioBatch))
        other.cancel()
        await listen_rest(other)
    second = await say(engine.submit(DecodeSpec(encoding=Encoding.PCM_F32LE, continue_from=before)), codes[5:])
    np.testing.assert_allclose(np.concatenate([first.f32, second.f32]), whole(tiny_decoder, codes), atol=1e-4)


async def listen_rest(utterance: object) -> Ended:
    events = [event async for event in utterance]  # type: ignore[attr-defined]
    assert isinstance(events[-1], Ended)
    return events[-1]


async def test_a_state_no_longer_held_is_said_not_guessed(engine: CodecEngine) -> None:
    before = engine.submit(DecodeSpec())
    await say(before, random_codes(2))
    for seed in range(2):  # two parked states is all this engine keeps
        await say(engine.submit(DecodeSpec()), random_codes(2, seed))
    heard = await say(engine.submit(DecodeSpec(continue_from=before)), random_codes(2))
    assert heard.ended.reason is FinishReason.FAILED
    assert isinstance(heard.ended.error, NotReady)
    assert engine.info().free_slot_count == 4


async def test_a_cancelled_utterance_cannot_be_continued(engine: CodecEngine) -> None:
    before = engine.submit(DecodeSpec())
    waiting = engine.submit(DecodeSpec(continue_from=before))
    before.cancel()
    with pytest.raises(OutOfOrder):
        engine.submit(DecodeSpec(continue_from=before))
    heard = await say(waiting, random_codes(1))
    assert (heard.ended.reason, type(heard.ended.error)) == (FinishReason.FAILED, OutOfOrder)
    await listen(before)
    assert engine.info().free_slot_count == 4


async def test_prime_codes_shape_the_sound_and_are_not_heard(engine: CodecEngine, tiny_decoder: Decoder) -> None:
    prime, codes = random_codes(19, seed=7), random_codes(9)
    expected = whole(tiny_decoder, prime + codes, heard_from=19)
    for _ in range(2):  # the second time from the state kept for this voice
        heard = await say(engine.submit(DecodeSpec(encoding=Encoding.PCM_F32LE, prime_codes=prime)), codes)
        assert heard.batches[0].first_frame_index == 0
        np.testing.assert_allclose(heard.f32, expected, atol=1e-4)


async def test_a_full_engine_refuses_at_once_and_says_when_to_return(engine: CodecEngine) -> None:
    running = [engine.submit(DecodeSpec()) for _ in range(4)]
    with pytest.raises(Overloaded) as refused:
        engine.submit(DecodeSpec())
    assert refused.value.retry_after_s > 0
    for utterance in running:
        utterance.cancel()
        await listen(utterance)
    engine.submit(DecodeSpec()).cancel()


async def test_after_cancel_nothing_is_heard_and_the_slot_is_free(engine: CodecEngine) -> None:
    utterance = engine.submit(DecodeSpec())
    utterance.feed(random_codes(400))
    async for event in utterance:
        if isinstance(event, AudioBatch):
            break
    utterance.cancel()
    rest = [event async for event in utterance]
    assert [type(event) for event in rest] == [Ended]
    assert rest[0].reason is FinishReason.CANCELLED
    assert rest[0].frame_count == event.frame_count
    assert engine.info().free_slot_count == 4
    utterance.feed(random_codes(1))
    utterance.cancel()


async def test_a_reader_that_stands_still_makes_its_utterance_sit_out(tiny: Path) -> None:
    engine = CodecEngine(EngineSettings(str(tiny), slot_count=2, max_queued_events=3, max_frames_per_step=1))
    await engine.start()
    slow, codes = engine.submit(F32), random_codes(40)
    slow.feed(codes)
    slow.flush()
    await say(engine.submit(F32), random_codes(60, seed=1), (1,))
    assert slow.session.frames_taken < 12  # type: ignore[attr-defined]
    heard = await listen(slow)
    assert heard.ended.frame_count == 40
    await engine.close()


@pytest.mark.parametrize(
    ("frames", "fault"),
    [
        ([[1] * 15], InvalidRequest),
        ([[1] * 17], InvalidRequest),
        ([[]], InvalidRequest),
        ([[1] * 15 + [64]], InvalidRequest),
        ([[-1] + [0] * 15], InvalidRequest),
        ([[0] * 16] * 501, Overloaded),
    ],
    ids=["15 codes", "17 codes", "none", "code 64 of 64", "code -1", "a queue overfull"],
)
async def test_bad_frames_are_refused_and_the_utterance_lives(
    engine: CodecEngine, frames: list[list[int]], fault: type[Exception]
) -> None:
    utterance = engine.submit(DecodeSpec())
    with pytest.raises(fault):
        utterance.feed(frames)
    heard = await say(utterance, random_codes(2))
    assert heard.ended.sample_count == 2 * FRAME


@pytest.mark.parametrize(
    "spec",
    [
        DecodeSpec(sample_rate_hz=23_999),
        DecodeSpec(channel_count=3),
        DecodeSpec(encoding=9),  # type: ignore[arg-type]
        DecodeSpec(encoding=Encoding.OPUS, sample_rate_hz=44_100),
        DecodeSpec(prime_codes=((1, 2, 3),)),
        DecodeSpec(prime_codes=random_codes(1501)),
        DecodeSpec(prime_codes=((0,) * 15 + (99,),)),
    ],
    ids=["rate", "channels", "encoding", "opus rate", "prime shape", "prime length", "prime code"],
)
async def test_what_cannot_be_is_refused_before_a_slot_is_taken(engine: CodecEngine, spec: DecodeSpec) -> None:
    with pytest.raises(InvalidRequest):
        engine.submit(spec)
    assert engine.info().free_slot_count == 4


async def test_frames_and_flush_after_flush_are_out_of_order(engine: CodecEngine) -> None:
    utterance = engine.submit(DecodeSpec())
    utterance.flush()
    with pytest.raises(OutOfOrder):
        utterance.flush()
    with pytest.raises(OutOfOrder):
        utterance.feed(random_codes(1))
    await listen(utterance)


async def test_close_ends_what_runs_and_refuses_what_comes(tiny: Path) -> None:
    engine = CodecEngine(EngineSettings(str(tiny), slot_count=2))
    with pytest.raises(NotReady):
        engine.submit(DecodeSpec())
    await engine.start()
    utterance = engine.submit(DecodeSpec())
    utterance.feed(random_codes(300))
    await engine.close()
    assert (await listen(utterance)).ended.reason is FinishReason.CANCELLED
    with pytest.raises(NotReady):
        engine.submit(DecodeSpec())


@pytest.mark.timeout(60)
async def test_whatever_callers_do_every_utterance_ends_once_and_every_slot_comes_back(engine: CodecEngine) -> None:
    """Four slots, forty callers who feed, continue, stop and give up at random; `listen` holds each to the promises."""
    rng = random.Random(3)

    async def caller(seed: int) -> None:
        before = None
        for turn in range(rng.randint(1, 4)):
            form = rng.choice([F32, DecodeSpec(), DecodeSpec(Encoding.OPUS, 48_000), DecodeSpec(Encoding.MULAW, 8_000)])
            spec = replace(form, continue_from=before if rng.random() < 0.5 else None)
            try:
                utterance = engine.submit(spec)
            except (Overloaded, OutOfOrder):
                await asyncio.sleep(0)
                continue
            for _ in range(rng.randint(0, 4)):
                utterance.feed(random_codes(rng.randint(1, 6), seed + turn))
                await asyncio.sleep(0)
            utterance.cancel() if rng.random() < 0.4 else utterance.flush()
            heard = await listen(utterance)
            assert heard.ended.reason is not FinishReason.FAILED or isinstance(
                heard.ended.error, (OutOfOrder, NotReady)
            )
            before = utterance

    await asyncio.gather(*(caller(seed) for seed in range(40)))
    assert engine.info().free_slot_count == 4


def test_the_engine_is_importable_without_torch() -> None:
    code = (
        "import sys, services.codec.engine; print([m for m in ('torch', 'grpc', 'pydantic', 'av') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
