"""Sound formats: exact counts and offsets, and pieces that join as if they had never been cut."""

from __future__ import annotations

from typing import Any

import av
import numpy as np
import numpy.typing as npt
import pytest
import soxr
from hypothesis import given, settings
from hypothesis import strategies as st

from common.errors import InvalidRequest
from common.stream import FinishReason
from services.codec.engine import CodecEngine, DecodeSpec, Encoding
from services.codec.model.decoder import Decoder
from services.codec.reference_audio import from_mulaw
from services.codec.sound import RATES_HZ, SoundStream, checked_format, mulaw, pcm_s16
from tests.codec.hearing import FRAME, random_codes, say, whole

RATE = 24_000


def tone(frames: int) -> npt.NDArray[np.float32]:
    t = np.arange(frames * FRAME) / RATE
    return (0.5 * np.sin(2 * np.pi * 313 * t) + 0.2 * np.sin(2 * np.pi * 2_345 * t)).astype(np.float32)


def streamed(samples: npt.NDArray[np.float32], sizes: list[int], **form: Any) -> list[Any]:
    stream = SoundStream(checked_format(form["encoding"], form["rate"], form.get("channels", 1), RATE), RATE)
    packets, at = [], 0
    while at < samples.size:
        size = sizes[len(packets) % len(sizes)] * FRAME
        packets += stream.push(samples[at : at + size]) or []
        at += size
        sizes = sizes[1:] + sizes[:1]
    return [*packets, *stream.flush()]


def test_s16_rounds_and_saturates() -> None:
    values = np.array([0, 0.5, -0.5, 1, -1, 1.5, -7, 1.2 / 32767, 1.6 / 32767, -1.6 / 32767], np.float32)
    assert pcm_s16(values).tolist() == [0, 16384, -16384, 32767, -32767, 32767, -32767, 1, 2, -2]


def test_mulaw_is_g711() -> None:
    """Fixed points of the standard's table, and every code is the nearest to what it stands for."""
    assert mulaw(np.array([0.0, 1.0, -1.0], np.float32)).tolist() == [0xFF, 0x80, 0x00]
    codes = np.arange(256, dtype=np.uint8)
    again = mulaw(from_mulaw(codes) * np.float32(32768 / 32767))
    assert [int(c) for c in codes if again[c] != c] == [0x7F]  # minus zero comes back as plus zero


@settings(max_examples=30, deadline=None)
@given(
    rate=st.sampled_from([r for r in RATES_HZ if r != RATE]),
    sizes=st.lists(st.integers(1, 5), min_size=1, max_size=4),
    frames=st.integers(1, 20),
)
def test_resampled_in_pieces_equals_resampled_whole(rate: int, sizes: list[int], frames: int) -> None:
    samples = tone(frames)
    packets = streamed(samples, sizes, encoding=Encoding.PCM_F32LE, rate=rate)
    pieces = np.frombuffer(b"".join(p.payload for p in packets), "<f4")
    assert sum(p.sample_count for p in packets) == pieces.size == frames * FRAME * rate // RATE
    expected = soxr.resample(samples, RATE, rate, quality="HQ")
    np.testing.assert_allclose(pieces[: expected.size], expected[: pieces.size], rtol=0, atol=1e-5)


@pytest.mark.parametrize("rate", [8_000, 16_000, 44_100, 48_000])
def test_no_packet_join_clicks(rate: int) -> None:
    """A tone's second difference is bounded by its frequency; a click would stand out by orders."""
    t = np.arange(50 * FRAME) / RATE
    packets = streamed((0.5 * np.sin(2 * np.pi * 400 * t)).astype(np.float32), [1], encoding=2, rate=rate)
    joined = np.frombuffer(b"".join(p.payload for p in packets), "<f4")[rate // 100 : -rate // 100]
    bound = 0.5 * (2 * np.pi * 400 / rate) ** 2
    assert np.abs(np.diff(joined, 2)).max() < 1.02 * bound


@pytest.mark.parametrize(("rate", "channels"), [(8_000, 1), (16_000, 1), (24_000, 2), (48_000, 1), (48_000, 2)])
def test_opus_packets_are_20_ms_and_sound_like_what_went_in(rate: int, channels: int) -> None:
    samples = tone(25)
    packets = streamed(samples, [1, 4], encoding=Encoding.OPUS, rate=rate, channels=channels)
    assert [p.sample_count for p in packets] == [rate // 50] * 100
    heard = opus_decoded([p.payload for p in packets], channels)
    assert heard.size == 2 * 48_000
    expected = soxr.resample(samples, RATE, 48_000, quality="HQ")
    lag = 312  # the look-ahead of libopus, 6.5 ms
    assert np.corrcoef(heard[lag + 4800 : -4800], expected[4800 : -4800 - lag])[0, 1] > 0.9


def opus_decoded(payloads: list[bytes], channels: int) -> npt.NDArray[np.float64]:
    decoder: Any = av.CodecContext.create("libopus", "r")
    decoder.sample_rate, decoder.layout = 48_000, "stereo" if channels == 2 else "mono"
    blocks = [frame.to_ndarray() for payload in payloads for frame in decoder.decode(av.Packet(payload))]
    joined = np.concatenate(blocks, axis=1)[0].astype(np.float64).reshape(-1, channels)
    if channels == 2:
        assert np.abs(joined[:, 0] - joined[:, 1]).max() < 0.1 * np.abs(joined).max()
    return joined[:, 0] / 32768


def test_an_opus_tail_is_padded_and_counted_as_what_was_left() -> None:
    stream = SoundStream(checked_format(Encoding.OPUS, RATE, 1, RATE), RATE)
    packets = [*stream.push(np.zeros(1000, np.float32)), *stream.flush()]
    assert [p.sample_count for p in packets] == [480, 480, 40]
    assert all(opus_decoded([p.payload], 1).size == 960 for p in packets)


@pytest.mark.parametrize(("encoding", "width"), [(Encoding.PCM_S16LE, 2), (Encoding.PCM_F32LE, 4), (Encoding.MULAW, 1)])
def test_both_channels_carry_the_same_sound(encoding: Encoding, width: int) -> None:
    mono = b"".join(p.payload for p in streamed(tone(2), [1], encoding=encoding, rate=RATE))
    stereo = b"".join(p.payload for p in streamed(tone(2), [1], encoding=encoding, rate=RATE, channels=2))
    assert len(stereo) == 2 * len(mono) == 2 * 2 * FRAME * width
    pairs = np.frombuffer(stereo, f"S{width}").reshape(-1, 2)
    assert (pairs[:, 0] == pairs[:, 1]).all()


def test_a_stream_that_never_got_a_sample_flushes_nothing() -> None:
    for encoding, rate in ((Encoding.OPUS, 48_000), (Encoding.PCM_S16LE, 8_000), (Encoding.MULAW, 8_000)):
        assert SoundStream(checked_format(encoding, rate, 1, RATE), RATE).flush() == []


def test_formats_that_cannot_be_made_are_refused() -> None:
    for encoding, rate, channels in ((7, 0, 0), (1, 12_345, 1), (3, 22_050, 1), (1, 0, 3), (1, 0, -1), (1, -8_000, 1)):
        with pytest.raises(InvalidRequest):
            checked_format(encoding, rate, channels, RATE)


@pytest.mark.parametrize(
    ("encoding", "rate", "samples_per_frame"),
    [(Encoding.PCM_F32LE, 16_000, 1280), (Encoding.MULAW, 8_000, 640), (Encoding.OPUS, 48_000, 3840)],
)
async def test_the_engine_counts_exactly_at_the_output_rate(
    engine: CodecEngine, encoding: Encoding, rate: int, samples_per_frame: int
) -> None:
    """`listen` checks that offsets and frame indices follow one another; here the totals."""
    heard = await say(engine.submit(DecodeSpec(encoding, rate)), random_codes(13), (1, 3))
    assert heard.ended.reason is FinishReason.COMPLETED
    assert heard.ended.sample_count == 13 * samples_per_frame
    assert heard.ended.frame_count == 13


async def test_the_engine_resamples_like_the_whole(engine: CodecEngine, tiny_decoder: Decoder) -> None:
    codes = random_codes(16)
    heard = await say(engine.submit(DecodeSpec(Encoding.PCM_F32LE, 48_000)), codes, (1, 2, 4))
    expected = soxr.resample(whole(tiny_decoder, codes).astype(np.float32), RATE, 48_000, quality="HQ")
    np.testing.assert_allclose(heard.f32, expected, rtol=0, atol=2e-4)
