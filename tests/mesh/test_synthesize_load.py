"""A hundred answers at once, over real processes with the tone fakes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator

import grpc
import pytest

from common.stream import FinishReason
from tests.fakes import speak, tone
from tests.gateway.caller import Caller, dialled, opened, until
from tests.mesh.speech import SpeechMesh, speech_mesh

pytestmark = [pytest.mark.load, pytest.mark.timeout(120)]
TEXT = "A hundred at once."
ANSWERS = 100


@pytest.fixture(scope="module")
def mesh() -> Iterator[SpeechMesh]:
    slots = str(ANSWERS // 2)
    talker = ["-m", "tests.fakes", "tts_lm", "--slots", slots]
    codec = ["-m", "tests.fakes", "codec", "--slots", slots]
    with speech_mesh([talker, talker], [codec, codec], "--max-streams", str(ANSWERS)) as it:
        yield it


async def answer(channel: grpc.aio.Channel, seed: int) -> Caller:
    caller = opened(channel)
    await caller.say(f"{seed}: {TEXT}", seed=seed)
    assert caller.reason is FinishReason.COMPLETED, caller.ended
    assert caller.pcm == tone(speak(f"{seed}: {TEXT}", seed))[0].tobytes()
    await caller.call.done_writing()
    assert await caller.call.read() is grpc.aio.EOF
    return caller


async def test_a_hundred_answers_at_once_are_whole_and_the_gateway_grows_by_nothing(mesh: SpeechMesh) -> None:
    sizes = []
    async with dialled(mesh.gateway.address) as channel:
        for _ in range(10):
            heard = await asyncio.gather(*(answer(channel, seed) for seed in range(ANSWERS)))
            assert len({caller.pcm for caller in heard}) == ANSWERS
            sizes.append(mesh.gateway_memory_bytes())
    # The allocator finds its level in the first rounds and breathes by 10 MiB around it; a round is 16 MB of sound.
    assert min(sizes[-4:]) - min(sizes[:4]) < 24 * 2**20, [size >> 20 for size in sizes]


async def test_beyond_the_slots_the_refusal_is_immediate_and_nobody_who_speaks_notices(mesh: SpeechMesh) -> None:
    async with dialled(mesh.gateway.address) as channel:
        speakers = [opened(channel) for _ in range(ANSWERS - 10)]
        for seed, caller in enumerate(speakers):
            await caller.start(seed=seed)
            await caller.text(TEXT)
        await asyncio.gather(*(caller.heard(1) for caller in speakers))
        # Nothing is written into a refusal: grpc.aio reports INTERNAL for a write that meets one.
        begin_s = time.perf_counter()
        late = [opened(channel) for _ in range(20)]
        await until(lambda: sum(caller.call.done() for caller in late) >= 10)
        assert time.perf_counter() - begin_s < 5.0
        refused = [caller for caller in late if caller.call.done()]
        admitted = [caller for caller in late if not caller.call.done()]
        assert [await caller.call.code() for caller in refused] == [grpc.StatusCode.RESOURCE_EXHAUSTED] * 10
        await asyncio.gather(*(caller.say(TEXT) for caller in admitted))
        assert [caller.reason for caller in admitted] == [FinishReason.COMPLETED] * 10
        for caller in speakers:
            await caller.flush()
        await asyncio.gather(*(caller.to_end() for caller in speakers))
        assert all(c.pcm == tone(speak(TEXT, seed))[0].tobytes() for seed, c in enumerate(speakers))
