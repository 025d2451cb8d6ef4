"""The codec as a client meets it: real gRPC, a real engine over a tiny checkpoint."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from io import BytesIO
from itertools import chain
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import soundfile
from google.rpc import code_pb2, error_details_pb2
from voicemesh.codec.v1 import codec_pb2, codec_pb2_grpc
from voicemesh.stream.v1 import stream_pb2

from services.codec.engine import Codes, EngineSettings, open_engine
from services.codec.model.decoder import Decoder
from tests.codec.hearing import FRAME, random_codes, whole
from tests.edges import serving

F32 = stream_pb2.AudioFormat(encoding=stream_pb2.AUDIO_ENCODING_PCM_F32LE)


@pytest.fixture
async def stub(tiny: Path) -> AsyncIterator[Any]:
    engine = open_engine(EngineSettings(str(tiny), slot_count=2, max_queued_frames=1000))
    async with serving("codec", engine) as server, grpc.aio.insecure_channel(server.address) as channel:
        yield codec_pb2_grpc.CodecServiceStub(channel)


def start(form: stream_pb2.AudioFormat = F32, utterance: int = 0, **fields: Any) -> codec_pb2.DecodeRequest:
    return codec_pb2.DecodeRequest(epoch=1, utterance=utterance, start=codec_pb2.DecodeStart(format=form, **fields))


def frames(codes: Codes, first: int = 0, utterance: int = 0) -> codec_pb2.DecodeRequest:
    message = codec_pb2.CodecFrames(first_frame_index=first, frame_count=len(codes), codes=chain.from_iterable(codes))
    return codec_pb2.DecodeRequest(epoch=1, utterance=utterance, frames=message)


def word(name: str, utterance: int = 0) -> codec_pb2.DecodeRequest:
    control = {name: getattr(stream_pb2, name.capitalize())()}
    return codec_pb2.DecodeRequest(epoch=1, utterance=utterance, **control)


def packets(codes: Codes, size: int, utterance: int = 0) -> list[codec_pb2.DecodeRequest]:
    return [frames(codes[i : i + size], i, utterance) for i in range(0, len(codes), size)]


async def answered(stub: Any, requests: Iterable[codec_pb2.DecodeRequest], until: int = 1) -> list[Any]:
    """Send, and read until so many utterances have ended."""
    call = stub.Decode()
    for request in requests:
        await call.write(request)
    responses: list[Any] = []
    while sum(r.HasField("ended") for r in responses) < until:
        response = await call.read()
        assert response is not grpc.aio.EOF
        responses.append(response)
    await call.done_writing()
    assert await call.read() is grpc.aio.EOF
    assert [r.seq for r in responses] == list(range(len(responses)))
    return responses


def sound(responses: list[Any], utterance: int = 0) -> np.ndarray[Any, Any]:
    chunks = [r.audio for r in responses if r.HasField("audio") and r.utterance == utterance]
    at = 0
    for chunk in chunks:
        assert chunk.first_sample_offset == at
        assert chunk.duration.ToMicroseconds() == pytest.approx(chunk.sample_count / 24_000 * 1e6, abs=1)
        at += chunk.sample_count
    return np.frombuffer(b"".join(c.payload for c in chunks), "<f4")


async def test_frames_in_packets_of_any_size_sound_like_one_decode(stub: Any, tiny_decoder: Decoder) -> None:
    codes = random_codes(18)
    for size in (1, 5, 18):
        responses = await answered(stub, [start(), *packets(codes, size), word("flush")])
        np.testing.assert_allclose(sound(responses), whole(tiny_decoder, codes), atol=1e-4)
        ended = responses[-1].ended
        assert ended.reason == stream_pb2.FINISH_REASON_COMPLETED
        assert (ended.frame_count, ended.sample_count) == (18, 18 * FRAME)
        assert ended.time_to_first.ToNanoseconds() > 0


async def test_utterances_of_one_answer_continue_the_state(stub: Any, tiny_decoder: Decoder) -> None:
    codes, prime = random_codes(14), random_codes(11, seed=3)
    first = [start(prime_codes=chain.from_iterable(prime)), *packets(codes[:6], 4), word("flush")]
    second = [start(utterance=1, continue_state=True), *packets(codes[6:], 3, 1), word("flush", 1)]
    responses = await answered(stub, [*first, *second], until=2)
    heard = np.concatenate([sound(responses, 0), sound(responses, 1)])
    np.testing.assert_allclose(heard, whole(tiny_decoder, prime + codes, heard_from=11), atol=1e-4)


async def test_stop_ends_the_utterance_and_the_stream_lives_on(stub: Any, tiny_decoder: Decoder) -> None:
    call = stub.Decode()
    for request in (start(), frames(random_codes(200))):
        await call.write(request)
    while not (await call.read()).HasField("audio"):
        pass
    await call.write(word("stop"))
    while not (response := await call.read()).HasField("ended"):
        assert response.HasField("audio")
    assert response.ended.reason == stream_pb2.FINISH_REASON_CANCELLED
    assert response.ended.frame_count < 200
    codes = random_codes(3)
    for request in (start(), frames(codes), word("flush")):
        request.epoch = 2
        await call.write(request)
    responses = [await call.read() for _ in range(3)]
    assert [r.epoch for r in responses] == [2, 2, 2]
    np.testing.assert_allclose(sound(responses)[:FRAME], whole(tiny_decoder, codes)[:FRAME], atol=1e-4)
    call.cancel()


async def test_reset_forgets_the_state(stub: Any) -> None:
    call = stub.Decode()
    for request in (start(), frames(random_codes(2)), word("flush")):
        await call.write(request)
    while not (await call.read()).HasField("ended"):
        pass
    await call.write(word("reset"))
    assert (await call.read()).HasField("reset_done")
    await call.write(codec_pb2.DecodeRequest(epoch=2, start=codec_pb2.DecodeStart(continue_state=True)))
    ended = (await call.read()).ended
    assert (ended.reason, ended.error.code) == (stream_pb2.FINISH_REASON_FAILED, code_pb2.FAILED_PRECONDITION)
    call.cancel()


BAD = {
    "15 codes": (frames(((1,) * 15,)), code_pb2.INVALID_ARGUMENT),
    "a code out of range": (frames(((64,) * 16,)), code_pb2.INVALID_ARGUMENT),
    "a negative code": (frames(((-1,) * 16,)), code_pb2.INVALID_ARGUMENT),
    "more frames than the queue holds": (frames(random_codes(1001)), code_pb2.RESOURCE_EXHAUSTED),
}


@pytest.mark.parametrize("fault", BAD)
async def test_bad_frames_end_their_utterance_and_no_other(stub: Any, fault: str) -> None:
    message, code = BAD[fault]
    again = [start(utterance=1), frames(random_codes(2), utterance=1), word("flush", 1)]
    responses = await answered(stub, [start(), message, *again], until=2)
    first, second = (r.ended for r in responses if r.HasField("ended"))
    assert (first.reason, first.error.code) == (stream_pb2.FINISH_REASON_FAILED, code)
    assert (second.reason, second.frame_count) == (stream_pb2.FINISH_REASON_COMPLETED, 2)


async def test_missing_frames_are_a_gap_and_never_sound(stub: Any) -> None:
    responses = await answered(stub, [start(), frames(random_codes(2)), frames(random_codes(1), first=5)])
    ended = responses[-1].ended
    assert (ended.reason, ended.error.code) == (stream_pb2.FINISH_REASON_FAILED, code_pb2.DATA_LOSS)
    assert ended.sample_count <= 2 * FRAME


async def test_formats_that_cannot_be_are_an_utterances_fault(stub: Any) -> None:
    odd = stream_pb2.AudioFormat(encoding=stream_pb2.AUDIO_ENCODING_OPUS, sample_rate_hz=44_100)
    ended = (await answered(stub, [start(odd)]))[-1].ended
    assert (ended.reason, ended.error.code) == (stream_pb2.FINISH_REASON_FAILED, code_pb2.INVALID_ARGUMENT)


async def test_a_full_house_says_when_to_come_back(stub: Any) -> None:
    calls = [stub.Decode() for _ in range(2)]
    for call in calls:
        await call.write(start())
        assert (await call.read()).HasField("started")
    assert (await stub.GetCodec(codec_pb2.GetCodecRequest())).free_slot_count == 0
    error = (await answered(stub, [start()]))[-1].ended.error
    assert error.code == code_pb2.RESOURCE_EXHAUSTED
    retry = error_details_pb2.RetryInfo()
    assert any(detail.Unpack(retry) for detail in error.details)
    assert retry.retry_delay.ToMilliseconds() > 0
    for call in calls:
        call.cancel()


async def test_opus_travels_one_packet_per_chunk(stub: Any) -> None:
    form = stream_pb2.AudioFormat(encoding=stream_pb2.AUDIO_ENCODING_OPUS, sample_rate_hz=48_000)
    responses = await answered(stub, [start(form), *packets(random_codes(5), 2), word("flush")])
    chunks = [r.audio for r in responses if r.HasField("audio")]
    assert [c.sample_count for c in chunks] == [960] * 20
    assert {c.duration.ToMilliseconds() for c in chunks} == {20}
    assert sum(c.frame_count for c in chunks) == 5


def wav(seconds: float = 1.0) -> bytes:
    t = np.arange(int(24_000 * seconds)) / 24_000
    file = BytesIO()
    soundfile.write(file, 0.3 * np.sin(2 * np.pi * 200 * t), 24_000, format="WAV")
    return file.getvalue()


def pieces(payload: bytes, form: stream_pb2.AudioFormat | None = None) -> list[codec_pb2.EncodeRequest]:
    cut = [codec_pb2.EncodeRequest(payload=payload[i : i + 9_999]) for i in range(0, len(payload), 9_999)]
    return [codec_pb2.EncodeRequest(format=form), *cut]


async def test_encode_gives_codes_that_decode_takes_as_prime(stub: Any) -> None:
    voice = await stub.Encode(iter(pieces(wav())))
    assert (voice.frame_count, len(voice.codes), len(voice.speaker_vector)) == (13, 13 * 16, 64)
    responses = await answered(stub, [start(prime_codes=voice.codes), frames(random_codes(1)), word("flush")])
    assert responses[-1].ended.sample_count == FRAME
    raw = stream_pb2.AudioFormat(encoding=stream_pb2.AUDIO_ENCODING_PCM_S16LE, sample_rate_hz=24_000)
    assert (await stub.Encode(iter(pieces(wav()[44:], raw)))).codes == voice.codes


@pytest.mark.parametrize(
    "payload",
    [b"", b"plain words, called reference.wav\n" * 100, wav(61), wav()[:44] + bytes(48_000)],
    ids=["nothing", "a text file", "too long", "silence"],
)
async def test_encode_refuses_what_is_no_reference(stub: Any, payload: bytes) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await stub.Encode(iter(pieces(payload)))
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_get_codec_says_what_it_is(stub: Any) -> None:
    answer = await stub.GetCodec(codec_pb2.GetCodecRequest())
    assert (answer.frame_rate_hz, answer.samples_per_frame, answer.sample_rate_hz) == (12.5, FRAME, 24_000)
    assert (answer.codebook_count, answer.codebook_size, answer.supports_encode) == (16, 64, True)
    assert (answer.slot_count, answer.free_slot_count, answer.dtype, answer.device) == (2, 2, "float32", "cpu")
