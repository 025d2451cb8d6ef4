"""A caller's bytes ↔ the samples of a conversation: PCM, mu-law and Opus at the usual rates, as they come.

In: any of them → 16 kHz mono int16. Out: blocks of 24 kHz mono int16 → any of them. Resampling keeps its state from one
message to the next. Knows nothing of streams and turns.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from voicemesh.stream.v1 import stream_pb2

from common.errors import InvalidRequest
from services.gateway.media.opus import Decoder, Encoder
from services.gateway.session.ports import BLOCK_S, HEARD_RATE_HZ, PLAYED_RATE_HZ, Samples
from services.gateway.session.resample import Resampler

S16, F32 = stream_pb2.AUDIO_ENCODING_PCM_S16LE, stream_pb2.AUDIO_ENCODING_PCM_F32LE
MULAW, OPUS = stream_pb2.AUDIO_ENCODING_MULAW, stream_pb2.AUDIO_ENCODING_OPUS
RATES_HZ = (8000, 16000, 24000, 48000)
WIDTHS = {S16: 2, F32: 4, MULAW: 1}
MAX_PACKET_BYTES = 1500  # of Opus
_MULAW_BIAS, _MULAW_CLIP = 132, 32635


def checked(
    form: stream_pb2.AudioFormat, default_rate_hz: int, field: str, max_channels: int
) -> stream_pb2.AudioFormat:
    """The format with its defaults written out. `InvalidRequest` for what is not spoken here."""
    whole = stream_pb2.AudioFormat(
        encoding=form.encoding or S16,
        sample_rate_hz=form.sample_rate_hz or (48000 if form.encoding == OPUS else default_rate_hz),
        channel_count=form.channel_count or 1,
    )
    if whole.encoding not in (*WIDTHS, OPUS):
        raise InvalidRequest("PCM, mu-law and Opus are spoken here.", reason="UNSUPPORTED", field=f"{field}.encoding")
    if whole.sample_rate_hz not in RATES_HZ:
        rates = ", ".join(map(str, RATES_HZ))
        sentence = f"Sound has {rates} samples a second, not {whole.sample_rate_hz}."
        raise InvalidRequest(sentence, reason="UNSUPPORTED", field=f"{field}.sample_rate_hz")
    if not 1 <= whole.channel_count <= max_channels:
        sentence = f"Sound has 1 to {max_channels} channels here, not {whole.channel_count}."
        raise InvalidRequest(sentence, reason="UNSUPPORTED", field=f"{field}.channel_count")
    return whole


class Intake:
    """What a person's client sends → samples to be heard."""

    def __init__(self, form: stream_pb2.AudioFormat) -> None:
        self._form = form
        self._rest = b""
        self._opus = Decoder(HEARD_RATE_HZ) if form.encoding == OPUS else None
        same = form.sample_rate_hz == HEARD_RATE_HZ
        self._resampler = None if same else Resampler(form.sample_rate_hz, HEARD_RATE_HZ)

    def take(self, payload: bytes) -> Samples:
        """The samples that it completes. `InvalidRequest` for what is no sound of that format."""
        if self._opus is not None:
            return self._packet(self._opus, payload)
        data = self._rest + payload
        whole = len(data) - len(data) % (WIDTHS[self._form.encoding] * self._form.channel_count)
        self._rest = data[whole:]
        samples = _decoded(data[:whole], self._form)
        if self._resampler is not None:
            samples = self._resampler.push(samples)
        return _s16(samples)

    def _packet(self, opus: Decoder, payload: bytes) -> Samples:
        if not payload or len(payload) > MAX_PACKET_BYTES:
            raise InvalidRequest("A message of Opus holds one packet.", field="audio")
        try:
            return opus.decode(payload)
        except ValueError:
            raise InvalidRequest("That is no Opus packet.", field="audio") from None


@dataclass(frozen=True, slots=True)
class Packet:
    """Sound as it is sent; `first_sample_offset` and `sample_count` at its own rate."""

    first_sample_offset: int
    sample_count: int
    payload: bytes


class Outlet:
    """Blocks of one answer → packets. A new one for each answer."""

    def __init__(self, form: stream_pb2.AudioFormat) -> None:
        self._form = form
        self._opus = Encoder(PLAYED_RATE_HZ) if form.encoding == OPUS else None
        same = form.sample_rate_hz == PLAYED_RATE_HZ or form.encoding == OPUS
        self._resampler = None if same else Resampler(PLAYED_RATE_HZ, form.sample_rate_hz)
        self.sample_count = 0
        """Made so far."""

    def push(self, samples: Samples) -> Packet | None:
        """One block; None while a filter holds all of it."""
        if self._opus is not None:
            return self._packet(self._opus.encode(samples), round(self._form.sample_rate_hz * BLOCK_S))
        if self._resampler is None and self._form.encoding == S16:
            return self._packet(samples.astype("<i2").tobytes(), samples.size)
        heard = samples.astype(np.float32) / np.float32(32768)
        return self._samples(heard if self._resampler is None else self._resampler.push(heard))

    def flush(self) -> Packet | None:
        """What a filter still holds."""
        return None if self._resampler is None else self._samples(self._resampler.flush())

    def _samples(self, samples: NDArray[np.float32]) -> Packet | None:
        if not samples.size:
            return None
        if self._form.encoding == F32:
            return self._packet(samples.astype("<f4").tobytes(), samples.size)
        values = _s16(samples)
        coded = mulaw(values).tobytes() if self._form.encoding == MULAW else values.astype("<i2").tobytes()
        return self._packet(coded, samples.size)

    def _packet(self, payload: bytes, count: int) -> Packet:
        packet = Packet(self.sample_count, count, payload)
        self.sample_count += count
        return packet


def mulaw(samples: Samples) -> NDArray[np.uint8]:
    """G.711: sign, three bits of exponent, four of mantissa, all inverted."""
    linear = samples.astype(np.int32)
    size = np.minimum(np.abs(linear), _MULAW_CLIP) + _MULAW_BIAS
    exponent = np.frexp(size.astype(np.float64))[1] - 8  # 132..255 is segment 0
    mantissa = (size >> (exponent + 3)) & 0x0F
    return np.asarray(~(np.where(linear < 0, 0x80, 0) | (exponent << 4) | mantissa) & 0xFF, np.uint8)


def _mulaw_table() -> NDArray[np.float32]:
    bits = ~np.arange(256, dtype=np.uint8)
    exponent, mantissa = (bits >> 4) & 7, bits & 15
    magnitude = ((2 * mantissa.astype(np.int32) + 33) << exponent) - 33
    return (np.where(bits & 0x80, -magnitude, magnitude) / 8192).astype(np.float32)


_MULAW_TABLE = _mulaw_table()


def _decoded(data: bytes, form: stream_pb2.AudioFormat) -> NDArray[np.float32]:
    samples: NDArray[np.float32]
    if form.encoding == S16:
        samples = np.frombuffer(data, "<i2").astype(np.float32) / np.float32(32768)
    elif form.encoding == F32:
        samples = np.nan_to_num(np.frombuffer(data, "<f4").astype(np.float32), posinf=1.0, neginf=-1.0)
    else:
        samples = _MULAW_TABLE[np.frombuffer(data, np.uint8)]
    if form.channel_count == 1:
        return samples
    return np.asarray(samples.reshape(-1, form.channel_count).mean(axis=1), np.float32)


def _s16(samples: NDArray[np.float32]) -> Samples:
    return np.asarray(np.rint(np.clip(samples * np.float32(32768), -32768, 32767)), np.int16)
