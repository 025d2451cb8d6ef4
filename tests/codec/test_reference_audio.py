"""Reference audio in every format that is read, and every fault that is told apart."""

from __future__ import annotations

import asyncio
import shutil
import struct
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import soundfile
import torch
from safetensors.torch import load_file, save_file

from common.errors import InvalidRequest, Overloaded
from services.codec.engine import CodecEngine, DecodeSpec, EncodeSpec, Encoding, EngineSettings
from services.codec.model.config import CodecConfig
from services.codec.model.encoder import load_encoder
from services.codec.reference_audio import Limits, read_reference
from services.codec.sound import mulaw, pcm_s16
from tests.codec.hearing import say

RATE = 24_000
LIMITS = Limits(longest_s=60, largest_bytes=64 * 2**20)
FILE = EncodeSpec()


def voice(seconds: float = 1.0, rate: int = RATE) -> npt.NDArray[np.float32]:
    t = np.arange(int(seconds * rate)) / rate
    return (0.3 * np.sin(2 * np.pi * 220 * t) * (1 + 0.5 * np.sin(2 * np.pi * 3 * t))).astype(np.float32)


def as_file(samples: npt.NDArray[Any], rate: int = RATE, format: str = "WAV", subtype: str | None = None) -> bytes:
    file = BytesIO()
    soundfile.write(file, samples, rate, format=format, subtype=subtype)
    return file.getvalue()


@pytest.mark.parametrize(
    ("format", "subtype", "likeness"),
    [
        ("WAV", "PCM_16", 0.9999),
        ("WAV", "FLOAT", 0.9999),
        ("WAV", "ULAW", 0.999),
        ("FLAC", "PCM_16", 0.9999),
        ("MP3", None, 0.99),
        ("OGG", "VORBIS", 0.99),
        ("OGG", "OPUS", 0.99),
    ],
)
@pytest.mark.parametrize("rate", [24_000, 48_000])
@pytest.mark.parametrize("channels", [1, 2])
def test_a_file_is_heard_as_what_it_holds(
    format: str, subtype: str | None, likeness: float, rate: int, channels: int
) -> None:
    samples = np.repeat(voice(1.0, rate)[:, None], channels, axis=1)
    read = read_reference(FILE, as_file(samples, rate, format, subtype), LIMITS, RATE)
    assert abs(read.size - RATE) <= 2000  # MP3 pads
    best = max(similarity(read, voice(), lag) for lag in range(0, 1200, 1 if format == "MP3" else 1200))
    assert best > likeness


def similarity(read: npt.NDArray[Any], expected: npt.NDArray[Any], lag: int) -> float:
    a, b = read[lag + 2000 : 20_000], expected[2000 : 20_000 - lag]
    return float(np.corrcoef(a, b)[0, 1])


@pytest.mark.parametrize("rate", [8_000, 11_025, 16_000, 22_050, 44_100, 96_000])
def test_any_rate_becomes_the_codecs(rate: int) -> None:
    read = read_reference(FILE, as_file(voice(1.0, rate), rate), LIMITS, RATE)
    assert abs(read.size - RATE) <= 1
    assert similarity(read, voice(), 0) > 0.999


def test_raw_samples_are_heard_as_their_file() -> None:
    samples = voice()
    whole = {
        Encoding.PCM_S16LE: pcm_s16(samples).tobytes(),
        Encoding.PCM_F32LE: samples.tobytes(),
        Encoding.MULAW: mulaw(samples).tobytes(),
    }
    for encoding, payload in whole.items():
        read = read_reference(EncodeSpec(encoding, RATE, 1), payload, LIMITS, RATE)
        np.testing.assert_allclose(read, samples, atol=0.02 if encoding is Encoding.MULAW else 1e-4)


def test_two_channels_are_averaged() -> None:
    both = np.stack([voice(), 0.5 * voice()], axis=1)
    read = read_reference(FILE, as_file(both, subtype="FLOAT"), LIMITS, RATE)
    np.testing.assert_allclose(read, 0.75 * voice(), atol=1e-6)


def ten_hours() -> bytes:
    """A WAV header that promises ten hours, before one second of sound."""
    wav = bytearray(as_file(voice()))
    size = 10 * 3600 * RATE * 2
    struct.pack_into("<I", wav, 4, size + 36)
    struct.pack_into("<I", wav, wav.index(b"data") + 4, size)
    return bytes(wav)


def clipped() -> npt.NDArray[np.float32]:
    return np.clip(8 * voice(), -1, 1)


def with_value(value: float) -> bytes:
    samples = voice()
    samples[100] = value
    return as_file(samples, subtype="FLOAT")


RAW = EncodeSpec(Encoding.PCM_S16LE, RATE, 1)
FAULTS = {
    "nothing": (FILE, b"", "empty"),
    "a text file named .wav": (FILE, b"This is not a wave file.\n" * 200, "not audio"),
    "a text with a RIFF header": (FILE, b"RIFF\x00\x00\x00\x00WAVE" + b"hello " * 100, "not audio"),
    "a cut header": (FILE, as_file(voice())[:20], "not audio"),
    "a picture": (FILE, b"\x89PNG\r\n\x1a\n" + bytes(1000), "not audio"),
    "61 seconds": (FILE, as_file(voice(61)), "61.0 s, at most 60"),
    "ten hours of FLAC": (FILE, as_file(np.zeros(RATE * 600, np.int16), format="FLAC"), "600.0 s"),
    "ten hours of raw samples": (EncodeSpec(Encoding.MULAW, 8_000, 1), bytes(10 * 3600 * 800), "3600.0 s"),
    "too many bytes": (FILE, bytes(LIMITS.largest_bytes + 1), "bytes"),
    "a tenth of a second": (FILE, as_file(voice(0.1)), "at least 0.2"),
    "silence": (FILE, as_file(np.zeros(RATE)), "silent"),
    "a whisper below -60 dB": (FILE, as_file(1e-3 * voice(), subtype="FLOAT"), "silent"),
    "clipped": (FILE, as_file(clipped()), "clipped"),
    "NaN": (FILE, with_value(float("nan")), "not numbers"),
    "infinity": (FILE, with_value(float("inf")), "not numbers"),
    "a peak of 1e30": (FILE, with_value(1e30), "peaks"),
    "six channels": (FILE, as_file(np.repeat(voice()[:, None], 6, axis=1)), "6 channels"),
    "half a sample": (RAW, pcm_s16(voice()).tobytes()[:-1], "whole samples"),
    "raw without a rate": (EncodeSpec(Encoding.PCM_S16LE), pcm_s16(voice()).tobytes(), "sample_rate_hz"),
    "raw at a rate of 1": (EncodeSpec(Encoding.PCM_S16LE, 1, 1), bytes(48_000), "1 Hz"),
    "raw in -1 channels": (EncodeSpec(Encoding.PCM_S16LE, RATE, -1), bytes(48_000), "channels"),
    "an encoding of 9": (EncodeSpec(9, RATE, 1), bytes(48_000), "not audio"),  # type: ignore[arg-type]
}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_is_no_reference_is_refused_with_its_reason(fault: str) -> None:
    spec, payload, words = FAULTS[fault]
    with pytest.raises(InvalidRequest, match=words):
        read_reference(spec, payload, LIMITS, RATE)


def test_a_header_that_promises_ten_hours_costs_nothing() -> None:
    """libsndfile trusts the file's size over the header's promise: what is there is read, or the promise is refused."""
    read = read_reference(FILE, ten_hours(), LIMITS, RATE)
    assert read.size == RATE


def test_a_full_scale_sine_is_not_called_clipped() -> None:
    samples = np.sin(2 * np.pi * 220 * np.arange(RATE) / RATE)
    read_reference(FILE, as_file(samples), LIMITS, RATE)


async def test_encode_gives_the_encoders_codes_and_they_can_be_spoken(engine: CodecEngine, tiny: Path) -> None:
    encoded = await engine.encode(FILE, as_file(voice(1.5)))
    config = CodecConfig.read(tiny)
    wave = torch.from_numpy(read_reference(FILE, as_file(voice(1.5)), LIMITS, RATE))
    encoder = load_encoder(config)
    assert encoder is not None
    assert [list(frame) for frame in encoded.codes] == encoder(wave).tolist()
    assert len(encoded.codes) == 19
    assert encoded.speaker_vector is not None
    assert len(encoded.speaker_vector) == 64
    heard = await say(engine.submit(DecodeSpec(prime_codes=encoded.codes)), encoded.codes[:3])
    assert heard.ended.frame_count == 3


async def test_the_same_reference_is_encoded_once(engine: CodecEngine) -> None:
    first = await engine.encode(FILE, as_file(voice()))
    assert await engine.encode(FILE, as_file(voice())) is first
    raw = pcm_s16(voice()).tobytes()
    one = await engine.encode(EncodeSpec(Encoding.PCM_S16LE, 24_000, 1), raw)
    other = await engine.encode(EncodeSpec(Encoding.PCM_S16LE, 16_000, 1), raw)
    assert len(one.codes) != len(other.codes)


async def test_too_many_references_at_once_are_refused(engine: CodecEngine) -> None:
    payloads = [as_file(voice(0.5 + i / 10)) for i in range(8)]
    answers = await asyncio.gather(*(engine.encode(FILE, p) for p in payloads), return_exceptions=True)
    refused = [a for a in answers if isinstance(a, BaseException)]
    assert {type(a) for a in refused} == {Overloaded}
    assert 0 < len(refused) < len(payloads)
    assert (await engine.encode(FILE, payloads[-1])).codes


def without_encoder(tiny: Path, directory: Path) -> Path:
    model = Path(shutil.copytree(tiny, directory / "copy"))
    path = model / "speech_tokenizer" / "model.safetensors"
    save_file({n: t for n, t in load_file(path).items() if not n.startswith("encoder.")}, path)
    return model


@pytest.mark.parametrize("wanted", [True, False])
async def test_a_codec_without_its_encoder_says_so(tiny: Path, tmp_path: Path, wanted: bool) -> None:
    model = without_encoder(tiny, tmp_path) if wanted else tiny
    engine = CodecEngine(EngineSettings(str(model), slot_count=1, encode=wanted))
    await engine.start()
    assert not engine.info().supports_encode
    with pytest.raises(InvalidRequest) as refused:
        await engine.encode(FILE, as_file(voice()))
    assert refused.value.reason == "UNSUPPORTED"
    await engine.close()
