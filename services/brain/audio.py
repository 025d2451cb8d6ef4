"""The person's samples: any format in, 16 kHz float mono out, as they come. Knows no model and no transport."""

from __future__ import annotations

import base64
import io

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray

from common.errors import InvalidRequest
from services.brain.types import AudioFormat

SAMPLE_RATE_HZ = 16000
"""What every model here hears."""

_BYTES = {"pcm_s16le": 2, "pcm_f32le": 4, "mulaw": 1}
_RATES = (8000, 48000)


def check_format(audio: AudioFormat) -> None:
    """Raise `InvalidRequest` for what cannot be heard here."""
    if audio.encoding not in _BYTES:
        raise InvalidRequest(f"audio encoding {audio.encoding!r} is not heard here", reason="UNSUPPORTED")
    if not _RATES[0] <= audio.sample_rate_hz <= _RATES[1]:
        raise InvalidRequest(f"audio at {audio.sample_rate_hz} Hz is not heard here; {_RATES[0]} to {_RATES[1]} Hz are")
    if audio.channel_count not in (1, 2):
        raise InvalidRequest(f"audio of {audio.channel_count} channels is not heard here; one or two are")


def duration_s(audio: AudioFormat, byte_count: int) -> float:
    """Seconds that `byte_count` bytes last."""
    return byte_count / (_BYTES[audio.encoding] * audio.channel_count * audio.sample_rate_hz)


class Ear:
    """Bytes, cut anywhere, to samples [N] float32 at `SAMPLE_RATE_HZ`, with some ms of filter delay."""

    def __init__(self, audio: AudioFormat) -> None:
        check_format(audio)
        self._format = audio
        self._rest = b""
        same = audio.sample_rate_hz == SAMPLE_RATE_HZ
        self._resampler = None if same else soxr.ResampleStream(audio.sample_rate_hz, SAMPLE_RATE_HZ, 1, "float32")

    def take(self, payload: bytes) -> NDArray[np.float32]:
        """The samples that `payload` completes; a split sample waits for its other half."""
        data = self._rest + payload
        whole = len(data) - len(data) % (_BYTES[self._format.encoding] * self._format.channel_count)
        self._rest = data[whole:]
        return self._resample(_decode(data[:whole], self._format), last=False)

    def flush(self) -> NDArray[np.float32]:
        """What the filter still holds; a half sample at the end is dropped."""
        self._rest = b""
        return self._resample(np.zeros(0, np.float32), last=True)

    def _resample(self, samples: NDArray[np.float32], last: bool) -> NDArray[np.float32]:
        if self._resampler is None:
            return samples
        return np.asarray(self._resampler.resample_chunk(samples, last=last), np.float32)


def whole(audio: AudioFormat, payload: bytes) -> NDArray[np.float32]:
    """All of a finished recording at once."""
    ear = Ear(audio)
    return np.concatenate([ear.take(payload), ear.flush()])


def _decode(data: bytes, audio: AudioFormat) -> NDArray[np.float32]:
    samples: NDArray[np.float32]
    if audio.encoding == "pcm_s16le":
        samples = np.frombuffer(data, "<i2").astype(np.float32) / np.float32(32768)
    elif audio.encoding == "pcm_f32le":
        samples = np.nan_to_num(np.frombuffer(data, "<f4").astype(np.float32), posinf=1.0, neginf=-1.0).clip(-1, 1)
    else:
        samples = _MULAW[np.frombuffer(data, np.uint8)]
    if audio.channel_count == 1:
        return samples
    return np.asarray(samples.reshape(-1, audio.channel_count).mean(axis=1), np.float32)


def _mulaw_table() -> NDArray[np.float32]:
    """G.711: sign, 3 bits of exponent, 4 of mantissa, all bits inverted; 14-bit magnitudes scaled to [-1, 1]."""
    bits = ~np.arange(256, dtype=np.uint8)
    exponent, mantissa = (bits >> 4) & 7, bits & 15
    magnitude = ((2 * mantissa.astype(np.int32) + 33) << exponent) - 33
    return (np.where(bits & 0x80, -magnitude, magnitude) / 8192).astype(np.float32)


_MULAW = _mulaw_table()


def wav_base64(samples: NDArray[np.float32]) -> str:
    """A 16 kHz, 16 bit WAV file as base64, as OpenAI's `input_audio` wants it."""
    out = io.BytesIO()
    soundfile.write(out, samples, SAMPLE_RATE_HZ, format="WAV", subtype="PCM_16")
    return base64.b64encode(out.getvalue()).decode("ascii")
