"""Bytes of reference audio → one channel of float32 at the codec's rate, or a sentence that says what is wrong.

Length is judged by the header, or by the bytes, before memory is spent on samples; level before they are resampled.
Refuses to know the model. soundfile (libsndfile) reads WAV, FLAC, MP3 and Ogg (Vorbis, Opus).
"""

from __future__ import annotations

from dataclasses import dataclass
from io import BytesIO
from typing import Any

import numpy as np
import numpy.typing as npt

from common.errors import InvalidRequest
from services.codec.sound import MULAW_BIAS
from services.codec.types import EncodeSpec, Encoding

Samples = npt.NDArray[np.float32]

RATES_HZ = range(8_000, 192_001)
MAX_CHANNELS = 2
SHORTEST_S = 0.2
"""Shorter, the speaker encoder's widest convolution has less than its own reach to hear."""
SILENCE_RMS = 1e-3
"""−60 dBFS: below it there is no voice, only the noise of a room."""
CLIPPED_LEVEL, CLIPPED_SHARE = 0.9999, 0.01
"""A full-scale sine spends 0.9 % of its samples up there; speech that was cut off more, other speech hardly any."""
LOUDEST = 8.0
SAMPLE_BYTES = {Encoding.PCM_S16LE: 2, Encoding.PCM_F32LE: 4, Encoding.MULAW: 1}


@dataclass(frozen=True, slots=True)
class Limits:
    longest_s: float
    largest_bytes: int


def read_reference(spec: EncodeSpec, payload: bytes, limits: Limits, rate_hz: int) -> Samples:
    """Mono samples at `rate_hz`. InvalidRequest: empty, too big, not audio, too short or long, silent, clipped, NaN."""
    if not payload:
        raise InvalidRequest("The reference audio is empty.")
    if len(payload) > limits.largest_bytes:
        sentence = f"The reference audio has {len(payload)} bytes, at most {limits.largest_bytes} are read."
        raise InvalidRequest(sentence, reason="TOO_LARGE")
    raw = spec.encoding in SAMPLE_BYTES
    samples, source_hz = _read_raw(spec, payload, limits) if raw else _read_file(payload, limits)
    _check_level(samples)
    mono = samples.mean(axis=1, dtype=np.float32)
    if source_hz == rate_hz:
        return np.ascontiguousarray(mono)
    import soxr

    resampled: Samples = soxr.resample(mono, source_hz, rate_hz, quality="HQ")
    return resampled


def _read_file(payload: bytes, limits: Limits) -> tuple[Samples, int]:
    import soundfile

    try:
        with soundfile.SoundFile(BytesIO(payload)) as file:
            _check_shape(file.samplerate, file.channels, file.frames, limits)
            longest = int(limits.longest_s * file.samplerate)
            samples: Samples = file.read(longest + 1, dtype="float32", always_2d=True)
            _check_shape(file.samplerate, file.channels, len(samples), limits)
            return samples, file.samplerate
    except soundfile.LibsndfileError as error:
        raise InvalidRequest(
            "The reference is not audio this codec reads: WAV, FLAC, MP3, Ogg or raw samples."
        ) from error


def _read_raw(spec: EncodeSpec, payload: bytes, limits: Limits) -> tuple[Samples, int]:
    channels = spec.channel_count or 1
    if not spec.sample_rate_hz:
        raise InvalidRequest("Raw samples need their sample_rate_hz.")
    width = SAMPLE_BYTES[spec.encoding] * max(channels, 1)
    if len(payload) % width:
        raise InvalidRequest(f"{len(payload)} bytes are not whole samples of {width} bytes.")
    _check_shape(spec.sample_rate_hz, channels, len(payload) // width, limits)
    values: npt.NDArray[Any]
    match spec.encoding:
        case Encoding.PCM_S16LE:
            values = np.frombuffer(payload, "<i2").astype(np.float32) / np.float32(32768)
        case Encoding.PCM_F32LE:
            values = np.frombuffer(payload, "<f4")
        case _:
            values = from_mulaw(np.frombuffer(payload, np.uint8))
    return values.reshape(-1, channels), spec.sample_rate_hz


def from_mulaw(codes: npt.NDArray[np.uint8]) -> Samples:
    """G.711 μ-law bytes → samples in (−1, 1)."""
    bits = (~codes).astype(np.int32)
    size = ((((bits & 0x0F) << 3) + MULAW_BIAS) << ((bits >> 4) & 7)) - MULAW_BIAS
    samples: Samples = np.where(bits & 0x80, -size, size).astype(np.float32) / np.float32(32768)
    return samples


def _check_shape(rate_hz: int, channels: int, frames: int, limits: Limits) -> None:
    if rate_hz not in RATES_HZ:
        raise InvalidRequest(f"A sample rate of {rate_hz} Hz is outside {RATES_HZ[0]} … {RATES_HZ[-1]}.")
    if not 1 <= channels <= MAX_CHANNELS:
        raise InvalidRequest(f"The reference audio has {channels} channels; mono or stereo is read.")
    if frames > limits.longest_s * rate_hz:
        sentence = f"The reference audio lasts {frames / rate_hz:.1f} s, at most {limits.longest_s:g} s are read."
        raise InvalidRequest(sentence, reason="TOO_LARGE")
    if frames < SHORTEST_S * rate_hz:
        raise InvalidRequest(
            f"The reference audio lasts {frames / rate_hz:.2f} s, at least {SHORTEST_S:g} s are needed."
        )


def _check_level(samples: Samples) -> None:
    if not np.isfinite(samples).all():
        raise InvalidRequest("The reference audio holds values that are not numbers.")
    size = np.abs(samples)
    if size.max() > LOUDEST:
        raise InvalidRequest(f"The reference audio peaks at {size.max():.3g}; full scale is 1.")
    if float(np.sqrt(np.mean(np.square(samples, dtype=np.float64)))) < SILENCE_RMS:
        raise InvalidRequest("The reference audio is silent.")
    if float(np.mean(size >= CLIPPED_LEVEL)) > CLIPPED_SHARE:
        raise InvalidRequest("The reference audio is clipped: record it at a lower level.")
