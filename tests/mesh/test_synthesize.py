"""The promises of speech, over all processes, with a random checkpoint in the official layout."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from voicemesh.codec.v1 import codec_pb2
from voicemesh.gateway.v1 import gateway_pb2
from voicemesh.stream.v1 import stream_pb2
from voicemesh.tts_lm.v1 import tts_lm_pb2

from cli.checkpoint.random import write_random
from common.stream import FinishReason
from tests.gateway.caller import Caller, calling, opened, reason_of
from tests.mesh.speech import CodecStub, Replica, SpeechMesh, TalkerStub, busy, speech_mesh

pytestmark = pytest.mark.timeout(150)  # the first test waits for five processes
TEXT = "The quick brown fox jumps over the lazy dog, and then it sleeps for a while in the warm sun."
FRAMES = 40  # random weights know no end


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_random(tmp_path_factory.mktemp("model"), like="tiny", seed=3)


@pytest.fixture(scope="module")
def mesh(model: Path) -> Iterator[SpeechMesh]:
    talker = ["-m", "services.tts_lm", "--model", str(model), "--deterministic", "--thread-count", "1"]
    # In float64 the order of sums leaves no trace in 16-bit samples, so that packets of any size must be equal bytes.
    codec = ["-m", "services.codec", "--model", str(model), "--no-encode", "--dtype", "float64"]
    with speech_mesh([talker, talker], [codec, codec]) as it:
        yield it


def speech(**more: Any) -> dict[str, Any]:
    return {"speech": tts_lm_pb2.GenerateStart(max_frames=FRAMES, **more)}


async def undisturbed(mesh: SpeechMesh) -> bytes:
    """The samples of `TEXT` as both stages make them by themselves, without a gateway: one decode of all codes."""
    async with grpc.aio.insecure_channel(mesh.talkers[-1].address) as channel:
        start = speech()["speech"]
        start.sampling.seed = 7
        requests = [
            tts_lm_pb2.GenerateRequest(start=start),
            tts_lm_pb2.GenerateRequest(text=tts_lm_pb2.TextDelta(text=TEXT)),
            tts_lm_pb2.GenerateRequest(flush=stream_pb2.Flush()),
        ]
        codes = [
            code async for response in TalkerStub(channel).Generate(iter(requests)) for code in response.frames.codes
        ]
    frames = codec_pb2.CodecFrames(first_frame_index=0, frame_count=len(codes) // 16, codes=codes)
    async with grpc.aio.insecure_channel(mesh.codecs[-1].address) as channel:
        requests = [
            codec_pb2.DecodeRequest(start=codec_pb2.DecodeStart()),
            codec_pb2.DecodeRequest(frames=frames),
            codec_pb2.DecodeRequest(flush=stream_pb2.Flush()),
        ]
        return b"".join([response.audio.payload async for response in CodecStub(channel).Decode(iter(requests))])


async def test_sound_through_the_mesh_is_one_undivided_decode_of_the_codes(mesh: SpeechMesh) -> None:
    async with calling(mesh.gateway.address) as caller:
        ended = await caller.say(TEXT, **speech())
        assert (caller.reason, ended.frame_count, ended.sample_count) == (FinishReason.LENGTH, FRAMES, FRAMES * 1920)
        assert caller.pcm == await undisturbed(mesh)


@pytest.mark.parametrize("sizes", [(1,), (3, 7, 2), (50,)])
@pytest.mark.parametrize("ramp", [(1,), (1, 2, 4), (9,)])
async def test_neither_the_cut_of_the_text_nor_the_packets_change_the_speech(
    mesh: SpeechMesh, sizes: tuple[int, ...], ramp: tuple[int, ...]
) -> None:
    async with calling(mesh.gateway.address) as caller:
        await caller.start(**speech(packet_ramp={"frames": ramp}))
        begin = count = 0
        while begin < len(TEXT):
            await caller.text(TEXT[begin : begin + sizes[count % len(sizes)]])
            begin += sizes[count % len(sizes)]
            count += 1
        await caller.flush()
        await caller.to_end()
        assert caller.pcm == await undisturbed(mesh)


async def test_the_first_packet_leaves_after_the_first_text_token_and_late_text_is_a_pause(mesh: SpeechMesh) -> None:
    async with calling(mesh.gateway.address) as caller:
        await caller.start(**speech())
        await caller.text("The q")  # "The" is final once a space and a letter follow; nothing behind it is
        await caller.heard(1)
        early = caller.frame_count
        await caller.text(TEXT[5:])
        await caller.flush()
        await caller.to_end()
        assert early == 1
        assert caller.pcm == await undisturbed(mesh)


async def test_who_else_is_served_does_not_change_the_speech(mesh: SpeechMesh) -> None:
    async with grpc.aio.insecure_channel(mesh.gateway.address) as channel:
        callers = [opened(channel) for _ in range(4)]
        for seed, caller in enumerate(callers):
            await caller.start(seed=7 if caller is callers[-1] else seed, **speech())
            await caller.text(TEXT)
        for caller in callers:
            await caller.flush()
            await caller.to_end()
        assert callers[-1].pcm == await undisturbed(mesh)
        assert len({caller.pcm for caller in callers}) == len(callers)


async def test_after_a_stop_nothing_of_that_epoch_is_delivered(mesh: SpeechMesh) -> None:
    async with calling(mesh.gateway.address) as caller:
        await caller.start(**speech())
        await caller.text(TEXT)
        await caller.heard(2)
        await caller.stop()
        await caller.to_end()
        assert caller.reason is FinishReason.CANCELLED
        await caller.start(**speech())
        assert (await caller.next()).epoch == 1
        await caller.text(TEXT)
        await caller.flush()
        await caller.to_end()
        assert caller.pcm == await undisturbed(mesh)


async def test_a_stranger_gets_the_right_answer_and_others_do_not_notice(mesh: SpeechMesh) -> None:
    async with calling(mesh.gateway.address) as caller, calling(mesh.gateway.address) as stranger:
        await caller.start(**speech())
        await caller.text(TEXT[:40])
        await caller.heard(1)
        ended = await stranger.say("x", speech={"voice": {"name": "nobody"}})
        assert reason_of(ended) == "UNKNOWN_NAME"
        ended = await stranger.say("x", format={"sample_rate_hz": 12345})
        assert ended.reason == FinishReason.FAILED
        await stranger.call.write(gateway_pb2.SynthesizeRequest(text="before any start", epoch=9))
        with pytest.raises(grpc.aio.AioRpcError) as failed:
            await stranger.next()
        assert failed.value.code() is grpc.StatusCode.FAILED_PRECONDITION
        await caller.text(TEXT[40:])
        await caller.flush()
        await caller.to_end()
        assert caller.pcm == await undisturbed(mesh)


KILLED: list[Callable[[SpeechMesh], list[Replica]]] = [lambda mesh: mesh.talkers, lambda mesh: mesh.codecs]


@pytest.mark.fault
@pytest.mark.parametrize("stage", KILLED, ids=["tts_lm", "codec"])
async def test_kill_9_in_mid_sentence_changes_no_code_and_no_sample(
    mesh: SpeechMesh, stage: Callable[[SpeechMesh], list[Replica]]
) -> None:
    before = await undisturbed(mesh)
    async with calling(mesh.gateway.address) as caller:
        await _killed_in_mid_sentence(mesh, caller, stage(mesh))
        assert (caller.reason, caller.ended.frame_count) == (FinishReason.LENGTH, FRAMES)
        assert caller.pcm == before


async def _killed_in_mid_sentence(mesh: SpeechMesh, caller: Caller, replicas: list[Replica]) -> None:
    await caller.start(**speech())
    await caller.text(TEXT[:20])
    await caller.heard(3)
    (await busy(replicas)).kill()
    await caller.text(TEXT[20:])
    await caller.flush()
    await caller.to_end()
