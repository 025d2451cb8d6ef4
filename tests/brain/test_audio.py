"""Every format of the contract becomes the same samples, however its bytes are cut."""

from __future__ import annotations

import numpy as np
import pytest

from common.errors import InvalidRequest
from services.brain.audio import Ear, check_format, duration_s, whole
from services.brain.types import AudioFormat

RNG = np.random.default_rng(0)
SAMPLES = (0.5 * np.sin(2 * np.pi * 300 * np.arange(8000) / 16000)).astype(np.float32)


def test_pcm_of_both_kinds_is_the_same_sound() -> None:
    as_int = whole(AudioFormat(), (SAMPLES * 32768).round().astype("<i2").tobytes())
    as_float = whole(AudioFormat("pcm_f32le"), SAMPLES.astype("<f4").tobytes())
    assert np.abs(as_int - as_float).max() <= 1 / 65536 + 1e-7


@pytest.mark.parametrize("encoding", ["pcm_s16le", "pcm_f32le", "mulaw"])
@pytest.mark.parametrize(("rate", "channels"), [(16000, 1), (48000, 2), (8000, 1), (44100, 2)])
def test_where_bytes_are_cut_changes_nothing(encoding: str, rate: int, channels: int) -> None:
    form = AudioFormat(encoding, rate, channels)  # type: ignore[arg-type]
    size = {"pcm_s16le": 2, "pcm_f32le": 4, "mulaw": 1}[encoding]
    noise = RNG.standard_normal(rate * channels // 2) * 0.1
    data = (
        noise.astype("<f4").tobytes() if size == 4 else RNG.integers(0, 256, noise.size * size).astype("u1").tobytes()
    )
    ear, cuts = Ear(form), sorted(RNG.integers(0, len(data), 20).tolist())
    parts = [data[a:b] for a, b in zip([0, *cuts], [*cuts, len(data)], strict=True)]
    streamed = np.concatenate([*(ear.take(part) for part in parts), ear.flush()])
    undivided = whole(form, data)
    assert streamed.shape == undivided.shape
    assert np.abs(streamed - undivided).max() < 1e-5
    assert abs(undivided.size - 8000) <= 2
    assert duration_s(form, len(data)) == pytest.approx(0.5)


def test_mulaw_has_its_known_points() -> None:
    samples = whole(AudioFormat("mulaw"), bytes([0xFF, 0x7F, 0x80, 0x00]))
    assert samples * 32768 == pytest.approx([0, 0, 32124, -32124])


def test_floats_that_are_no_numbers_are_silence() -> None:
    values = np.array([np.nan, np.inf, -np.inf, 9.0], "<f4")
    assert whole(AudioFormat("pcm_f32le"), values.tobytes()).tolist() == [0, 1, -1, 1]


@pytest.mark.parametrize("form", [AudioFormat("opus"), AudioFormat(sample_rate_hz=0), AudioFormat(channel_count=0)])  # type: ignore[arg-type]
def test_what_cannot_be_heard_is_refused(form: AudioFormat) -> None:
    with pytest.raises(InvalidRequest):
        check_format(form)
