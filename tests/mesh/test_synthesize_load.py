"""A hundred answers at once, over real processes with the tone fakes."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Iterator

import grpc
import pytest

from common.stream import FinishReason
from tests.fakes import speak, tone
from tests.gateway.caller import Caller, dialled, opened
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
        late = [opened(channel) for _ in range(20)]
        outcomes = await asyncio.gather(*(_outcome(caller) for caller in late))
        assert Counter(what for what, _ in outcomes) == {"RESOURCE_EXHAUSTED": 10, "COMPLETED": 10}
        assert max(took_s for what, took_s in outcomes if what == "RESOURCE_EXHAUSTED") < 1.0
        for caller in speakers:
            await caller.flush()
        await asyncio.gather(*(caller.to_end() for caller in speakers))
        assert all(c.pcm == tone(speak(TEXT, seed))[0].tobytes() for seed, c in enumerate(speakers))


async def _outcome(caller: Caller) -> tuple[str, float]:
    begin_s = time.perf_counter()
    try:
        await caller.say(TEXT)
    except grpc.aio.AioRpcError as error:
        return error.code().name, time.perf_counter() - begin_s
    return caller.reason.name, time.perf_counter() - begin_s
