"""Every format in and out: what goes round comes back as the same tone, in any cut."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from voicemesh.stream.v1 import stream_pb2

from common.errors import InvalidRequest
from services.gateway.media.opus import Encoder
from services.gateway.session.formats import F32, MULAW, OPUS, RATES_HZ, S16, Intake, Outlet, checked, mulaw
from services.gateway.session.resample import Resampler

FORMATS = [(encoding, rate) for encoding in (S16, F32, MULAW) for rate in RATES_HZ] + [(OPUS, 48000)]


def form(encoding, rate_hz, channels=1):
    return stream_pb2.AudioFormat(encoding=encoding, sample_rate_hz=rate_hz, channel_count=channels)


def tone(rate_hz, seconds=0.6):
    return np.round(8000 * np.sin(2 * np.pi * 440 * np.arange(round(rate_hz * seconds)) / rate_hz)).astype(np.int16)


def hertz(samples, rate_hz):
    """The strongest frequency."""
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(samples.size)))
    return float(np.argmax(spectrum) * rate_hz / samples.size)


@pytest.mark.parametrize(("encoding", "rate_hz"), FORMATS)
def test_a_tone_goes_out_and_comes_in_again(encoding, rate_hz):
    outlet, intake, played = Outlet(form(encoding, rate_hz)), Intake(form(encoding, rate_hz)), tone(24000)
    packets = [outlet.push(block) for block in played.reshape(-1, 480)] + [outlet.flush()]
    packets = [packet for packet in packets if packet is not None]
    assert packets[0].first_sample_offset == 0
    for before, after in pairwise(packets):
        assert after.first_sample_offset == before.first_sample_offset + before.sample_count
    assert abs(outlet.sample_count - played.size * rate_hz / 24000) <= 2
    heard = np.concatenate([intake.take(packet.payload) for packet in packets])
    assert heard.size >= 0.55 * 16000
    assert hertz(heard[1600:], 16000) == pytest.approx(440, abs=4)
    assert np.abs(heard[1600:-1600]).max() == pytest.approx(8000, rel=0.1)


@given(st.lists(st.integers(0, 700), max_size=12))
@settings(max_examples=40, deadline=None)
def test_the_cut_of_messages_changes_nothing(cuts):
    payload = np.repeat(tone(48000, 0.05), 2).tobytes()
    whole = Intake(form(S16, 48000, 2)).take(payload)
    intake, pieces, begin = Intake(form(S16, 48000, 2)), [], 0
    for cut in cuts:
        pieces.append(intake.take(payload[begin : begin + cut]))
        begin += cut
    pieces.append(intake.take(payload[begin:]))
    together = np.concatenate(pieces)
    assert np.array_equal(together, whole)


@pytest.mark.parametrize(("from_hz", "to_hz"), [(a, b) for a in RATES_HZ for b in RATES_HZ if a != b])
def test_resampling_is_in_time_and_nearly_without_delay(from_hz, to_hz):
    resampler, played = Resampler(from_hz, to_hz), tone(from_hz).astype(np.float32)
    pieces = [resampler.push(block) for block in played.reshape(30, -1)]
    late_s = played.size / from_hz - sum(piece.size for piece in pieces) / to_hz
    assert late_s <= 0.0016
    heard = np.concatenate([*pieces, resampler.flush()])
    assert abs(heard.size - played.size * to_hz / from_hz) <= 1
    inside = slice(to_hz // 50, round(0.55 * to_hz))
    assert np.abs(heard - tone(to_hz, 1.0)[: heard.size])[inside].max() < 20


def test_what_the_lower_rate_cannot_hold_is_gone():
    shrill = np.sin(2 * np.pi * 5000 * np.arange(24000) / 24000).astype(np.float32)
    assert np.abs(Resampler(24000, 8000).push(shrill)[100:]).max() < 0.001


def test_mulaw_is_the_standards():
    assert mulaw(np.array([0, 32635, -32635, -1, 1000], np.int16)).tolist() == [0xFF, 0x80, 0x00, 0x7F, 0xCE]


def test_defaults_are_written_out():
    assert checked(stream_pb2.AudioFormat(), 16000, "input_format", 2) == form(S16, 16000)
    assert checked(stream_pb2.AudioFormat(encoding=OPUS), 24000, "output_format", 1) == form(OPUS, 48000)


@pytest.mark.parametrize("wrong", [form(S16, 44100), form(S16, 8000, 3), form(99, 8000), form(S16, -1)])
def test_what_is_not_spoken_here_is_refused(wrong):
    with pytest.raises(InvalidRequest):
        checked(wrong, 16000, "input_format", 2)


@pytest.mark.parametrize("junk", [b"", bytes(2000), b"\xff\xff\xff"])
def test_junk_is_no_opus(junk):
    intake = Intake(form(OPUS, 48000))
    with pytest.raises(InvalidRequest):
        intake.take(junk)
    assert intake.take(Encoder(24000).encode(tone(24000)[:480])).size == 320  # and does no harm


def test_floats_that_are_no_numbers_are_no_sound():
    samples = np.array([np.nan, np.inf, -np.inf, 0.5], "<f4")
    assert Intake(form(F32, 16000)).take(samples.tobytes()).tolist() == [0, 32767, -32768, 16384]
