"""The same scripts against the engines that really run, with tiny random weights.

What an utterance must say is what the same input says on a stream of its own: what came before it changes nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from voicemesh.codec.v1 import codec_pb2
from voicemesh.tts_lm.v1 import tts_lm_pb2

from cli.checkpoint.random import write_random
from common.stream import FinishReason, Kind
from services.brain.engine import BackendOptions, OfflineOptions
from services.brain.engine import create_engine as create_brain
from services.codec.engine import EngineSettings, open_engine
from services.tts_lm.load import create_engine as create_talker
from services.tts_lm.types import EngineOptions
from tests.conformance.dialects import Brain, Codec, Dialect, TtsLm
from tests.conformance.house import House, until
from tests.conformance.test_properties import Expectation
from tests.edges import serving
from tests.guarantees import check

EXAMPLES = 25
SLOTS = 4
MAX_FRAMES = 6
OVER = (FinishReason.COMPLETED, FinishReason.LENGTH, FinishReason.RUNAWAY)


class GreedyTtsLm(TtsLm):
    """A model with random weights rarely ends by itself."""

    def start(self) -> dict[str, Any]:
        sampling = tts_lm_pb2.Sampling(greedy=True)
        return {"start": tts_lm_pb2.GenerateStart(sampling=sampling, max_frames=MAX_FRAMES)}


class SmallCodec(Codec):
    """The tiny checkpoint's codebooks hold 64 codes; how many samples a frame has is the checkpoint's business too."""

    def piece(self, index: int) -> dict[str, Any]:
        codes = [(31 * index + 7 * codebook) % 64 for codebook in range(16)]
        return {"frames": codec_pb2.CodecFrames(first_frame_index=index, frame_count=1, codes=codes)}

    def product(self, response: Any) -> tuple[int | None, int, Any]:
        audio = response.audio
        return audio.first_sample_offset, audio.sample_count, audio.payload


REAL: dict[str, Dialect] = {"tts_lm": GreedyTtsLm(), "codec": SmallCodec(), "brain": Brain()}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_random(tmp_path_factory.mktemp("tiny"), like="tiny", type="custom_voice", seed=0)


def engine_of(service: str, checkpoint: Path) -> Any:
    if service == "tts_lm":
        return create_talker(EngineOptions(str(checkpoint), slot_count=SLOTS, kv_positions=4096, thread_count=1))
    if service == "codec":
        return open_engine(EngineSettings(str(checkpoint), slot_count=SLOTS, encode=False))
    return create_brain(BackendOptions(offline=OfflineOptions(tokens_per_s=0)))


@asynccontextmanager
async def real_house(service: str, checkpoint: Path) -> AsyncIterator[tuple[House, Any]]:
    engine = engine_of(service, checkpoint)
    async with serving(service, engine) as server, grpc.aio.insecure_channel(server.address) as channel:
        yield House(REAL[service], server, channel, ()), engine


async def said_alone(home: House, count: int) -> Any:
    """What an utterance of so many inputs says on a stream of its own."""
    stream = home.stream()
    await stream.say_all((Kind.START, *[Kind.INPUT] * count, Kind.FLUSH))
    assert await stream.finish() == "OK"
    check(stream.history)
    assert stream.history.heard[-1].reason in OVER
    assert stream.product() or count == 0
    return stream.product()


async def play(home: House, engine: Any, script: list[Kind], alone: dict[int, Any]) -> None:
    expectation = Expectation(home.dialect, [(kind, {}) for kind in script])
    for count in set(expectation.inputs.values()) - alone.keys():
        alone[count] = await said_alone(home, count)
    stream = home.stream()
    stream.history = expectation.history
    for request in expectation.requests:
        await stream.send(request)
    assert await stream.finish() == expectation.status
    if expectation.status != "OK":
        return
    check(stream.history)
    utterances = stream.history.utterances()
    for number, place in enumerate(stream.history.begun):
        end, heard = utterances[number][-1], stream.product(number)
        if place in stream.history.flushed - expectation.cut:
            assert end.reason in OVER
            assert heard == alone[expectation.inputs[place]]
    info = engine.info
    await until(lambda: info().free_slot_count == info().slot_count)


legal = st.sampled_from([Kind.START, Kind.INPUT, Kind.INPUT, Kind.FLUSH, Kind.FLUSH, Kind.STOP])
scripts = st.lists(legal, max_size=12).map(lambda script: [Kind.START, Kind.INPUT, *script])


@pytest.mark.timeout(120)
@pytest.mark.parametrize("service", sorted(REAL))
def test_any_script_is_answered_as_the_rules_say_by_the_real_engine(service, checkpoint):
    with asyncio.Runner() as runner:
        opening = real_house(service, checkpoint)
        home, engine = runner.run(opening.__aenter__())
        alone: dict[int, Any] = {}

        @settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck), database=None)
        @given(scripts)
        def plays(script: list[Kind]) -> None:
            runner.run(play(home, engine, script, alone))

        try:
            plays()
        finally:
            runner.run(opening.__aexit__(None, None, None))


@pytest.mark.timeout(60)
@pytest.mark.parametrize("service", sorted(REAL))
async def test_streams_dropped_at_any_moment_free_every_slot_of_the_real_engine(service, checkpoint):
    async with real_house(service, checkpoint) as (home, engine):
        for number in range(40):
            stream = home.stream()
            await stream.say_all((Kind.START, Kind.INPUT, Kind.INPUT, Kind.FLUSH)[: 1 + number % 4])
            if number % 3:
                await stream.hear()
            stream.call.cancel()
        await until(lambda: engine.info().free_slot_count == engine.info().slot_count)
        assert await said_alone(home, 2)
