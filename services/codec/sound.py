"""Samples of one utterance at the codec's rate → packets in the sound format the caller asked for.

Everything that filters keeps its state here, so that packets join without a click: what comes out in pieces is what the
whole would have given. Refuses to know frames and codes. soxr and PyAV are imported only when a format needs them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from common.errors import InvalidRequest
from services.codec.types import Encoding

Samples = npt.NDArray[np.float32]

RATES_HZ = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000)
OPUS_RATES_HZ = (8000, 12000, 16000, 24000, 48000)
OPUS_PACKET_S = 0.02
OPUS_BITS_PER_CHANNEL = 40_000
MULAW_BIAS, MULAW_CLIP = 0x84, 32_635


@dataclass(frozen=True, slots=True)
class SoundFormat:
    encoding: Encoding
    sample_rate_hz: int
    channel_count: int


@dataclass(frozen=True, slots=True)
class Packet:
    """`sample_count` per channel."""

    sample_count: int
    payload: bytes


def checked_format(encoding: int, sample_rate_hz: int, channel_count: int, codec_rate_hz: int) -> SoundFormat:
    """Defaults filled in. InvalidRequest for what cannot be made."""
    if encoding not in list(Encoding):
        raise InvalidRequest(f"Unknown audio encoding {encoding}.", reason="UNSUPPORTED")
    chosen = SoundFormat(Encoding(encoding or Encoding.PCM_S16LE), sample_rate_hz or codec_rate_hz, channel_count or 1)
    rates = OPUS_RATES_HZ if chosen.encoding is Encoding.OPUS else tuple(sorted({*RATES_HZ, codec_rate_hz}))
    if chosen.sample_rate_hz not in rates:
        made = ", ".join(map(str, rates))
        sentence = f"{chosen.encoding.name} is made at {made} Hz, not {sample_rate_hz}."
        raise InvalidRequest(sentence, reason="UNSUPPORTED")
    if chosen.channel_count not in (1, 2):
        raise InvalidRequest(f"Sound has 1 or 2 channels, not {channel_count}.", reason="UNSUPPORTED")
    return chosen


class SoundStream:
    """One utterance's way out: push samples as they come, flush once at the end."""

    def __init__(self, form: SoundFormat, codec_rate_hz: int) -> None:
        self._rates = (codec_rate_hz, form.sample_rate_hz)
        self._resampler = None if form.sample_rate_hz == codec_rate_hz else _resampler(*self._rates)
        self._packets = _packetiser(form)
        self._taken = 0
        self._made = 0

    def push(self, samples: Samples) -> list[Packet]:
        """Packets that these samples release; possibly none, when a filter still holds them."""
        self._taken += samples.size
        if self._resampler is not None:
            samples = self._resampler.resample_chunk(samples)
        self._made += samples.size
        return self._packets.push(samples)

    def flush(self) -> list[Packet]:
        """The rest. In all, exactly round(samples · rate / codec rate) samples per channel have then come out."""
        if self._resampler is None:
            return self._packets.flush(np.zeros(0, np.float32))
        rest = self._resampler.resample_chunk(np.zeros(0, np.float32), last=True)
        due = round(self._taken * self._rates[1] / self._rates[0]) - self._made
        return self._packets.flush(np.pad(rest[:due], (0, max(0, due - rest.size))))


def pcm_s16(samples: Samples) -> npt.NDArray[np.int16]:
    """round(32767·x), saturating."""
    scaled: npt.NDArray[np.int16] = np.rint(np.clip(samples, -1.0, 1.0) * np.float32(32767)).astype("<i2")
    return scaled


def mulaw(samples: Samples) -> npt.NDArray[np.uint8]:
    """G.711 μ-law: sign, three bits of exponent, four of mantissa, all inverted."""
    linear = pcm_s16(samples).astype(np.int32)
    size = np.minimum(np.abs(linear), MULAW_CLIP) + MULAW_BIAS
    exponent = np.frexp(size.astype(np.float64))[1] - 8  # 132..255 is segment 0
    mantissa = (size >> (exponent + 3)) & 0x0F
    coded: npt.NDArray[np.uint8] = (~(np.where(linear < 0, 0x80, 0) | (exponent << 4) | mantissa) & 0xFF).astype(
        np.uint8
    )
    return coded


def _resampler(from_hz: int, to_hz: int) -> Any:
    import soxr

    return soxr.ResampleStream(from_hz, to_hz, 1, dtype="float32", quality="HQ")


class _Packetiser(ABC):
    @abstractmethod
    def push(self, samples: Samples) -> list[Packet]: ...

    @abstractmethod
    def flush(self, samples: Samples) -> list[Packet]: ...


def _packetiser(form: SoundFormat) -> _Packetiser:
    return _Opus(form) if form.encoding is Encoding.OPUS else _Pcm(form)


@dataclass
class _Pcm(_Packetiser):
    """Whatever has come is one packet."""

    form: SoundFormat

    def push(self, samples: Samples) -> list[Packet]:
        if not samples.size:
            return []
        values: npt.NDArray[Any]
        match self.form.encoding:
            case Encoding.PCM_F32LE:
                values = samples.astype("<f4")
            case Encoding.MULAW:
                values = mulaw(samples)
            case _:
                values = pcm_s16(samples)
        return [Packet(samples.size, np.repeat(values, self.form.channel_count).tobytes())]

    flush = push


class _Opus(_Packetiser):
    """One packet per 20 ms, as RTP carries them. The last is padded with silence; its `sample_count` is what was left.

    Opus itself delays by its look-ahead (6.5 ms), as every receiver of bare packets hears it.
    """

    def __init__(self, form: SoundFormat) -> None:
        try:
            import av
        except ImportError as error:
            raise InvalidRequest(
                "This codec was installed without Opus (the package `av`).", reason="UNSUPPORTED"
            ) from error
        self._frame = av.AudioFrame
        self._form = form
        self._size = round(form.sample_rate_hz * OPUS_PACKET_S)
        self._waiting = np.zeros(0, np.float32)
        self._layout = "mono" if form.channel_count == 1 else "stereo"
        encoder: Any = av.CodecContext.create("libopus", "w")
        encoder.sample_rate, encoder.layout, encoder.format = form.sample_rate_hz, self._layout, "s16"
        encoder.bit_rate = OPUS_BITS_PER_CHANNEL * form.channel_count
        encoder.options = {"frame_duration": "20", "application": "voip"}
        encoder.open()
        self._encoder = encoder

    def push(self, samples: Samples) -> list[Packet]:
        self._waiting = np.concatenate([self._waiting, samples])
        whole = self._waiting.size // self._size
        blocks = self._waiting[: whole * self._size].reshape(whole, self._size)
        self._waiting = self._waiting[whole * self._size :]
        return [Packet(self._size, self._encode(block)) for block in blocks]

    def flush(self, samples: Samples) -> list[Packet]:
        packets = self.push(samples)
        if left := self._waiting.size:
            last = np.pad(self._waiting, (0, self._size - left))
            packets.append(Packet(left, self._encode(last)))
        return packets

    def _encode(self, block: Samples) -> bytes:
        interleaved = np.repeat(pcm_s16(block), self._form.channel_count)[np.newaxis]
        frame = self._frame.from_ndarray(interleaved, format="s16", layout=self._layout)
        frame.sample_rate = self._form.sample_rate_hz
        return b"".join(bytes(packet) for packet in self._encoder.encode(frame))
