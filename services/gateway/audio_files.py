"""Samples as they come → the bytes of an audio file as they can be sent: WAV, Ogg Opus, MP3, FLAC, AAC, or bare PCM.

Each piece of sound gives the bytes that it completes; nothing waits for the end, so headers state no length. Knows no
HTTP. PyAV is imported only when a format needs it.
"""

from __future__ import annotations

import struct
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Any

import numpy as np

_UNKNOWN = 0xFFFFFFFF  # what streaming writers put where the length of a WAV would stand
_BLOCK_S = 0.02


class AudioFile(ABC):
    """One file, one channel. `sample_rate_hz` is that of the samples pushed, signed 16-bit little endian."""

    content_type: str

    @abstractmethod
    def push(self, pcm: bytes) -> bytes:
        """What these samples complete."""

    @abstractmethod
    def finish(self) -> bytes:
        """The rest of the file."""


class _Raw(AudioFile):
    content_type = "audio/pcm"

    def __init__(self, sample_rate_hz: int) -> None:
        self._head = b""

    def push(self, pcm: bytes) -> bytes:
        head, self._head = self._head, b""
        return head + pcm

    def finish(self) -> bytes:
        return self.push(b"")


class _Wav(_Raw):
    content_type = "audio/wav"

    def __init__(self, sample_rate_hz: int) -> None:
        form = (1, 1, sample_rate_hz, sample_rate_hz * 2, 2, 16)
        self._head = struct.pack(
            "<4sI4s4sIHHIIHH4sI", b"RIFF", _UNKNOWN, b"WAVE", b"fmt ", 16, *form, b"data", _UNKNOWN
        )


@dataclass(frozen=True)
class _Kind:
    """How PyAV is asked for a format."""

    content_type: str
    container: str
    codec: str
    bit_rate: int = 0
    sample_format: str = "s16"
    codec_options: dict[str, str] = field(default_factory=dict)
    container_options: dict[str, str] = field(default_factory=dict)


_KINDS = {
    # A page of Ogg for every packet: by default the muxer collects a second.
    "opus": _Kind(
        "audio/ogg",
        "ogg",
        "libopus",
        48_000,
        codec_options={"frame_duration": "20", "application": "audio"},
        container_options={"page_duration": "20000"},
    ),
    # No tag and no table of contents in front: both are written when the end is known.
    "mp3": _Kind(
        "audio/mpeg",
        "mp3",
        "libmp3lame",
        64_000,
        sample_format="s16p",
        codec_options={"reservoir": "0"},
        container_options={"write_xing": "0", "id3v2_version": "0"},
    ),
    "flac": _Kind("audio/flac", "flac", "flac"),
    "aac": _Kind("audio/aac", "adts", "aac", 64_000, sample_format="fltp"),
}
FORMATS = ("pcm", "wav", *_KINDS)


class _Collector:
    """What a muxer writes, until it is taken. It cannot seek: nothing is mended afterwards."""

    def __init__(self) -> None:
        self._bytes = bytearray()

    def write(self, piece: bytes) -> int:
        self._bytes += piece
        return len(piece)

    def take(self) -> bytes:
        taken = bytes(self._bytes)
        self._bytes.clear()
        return taken


class _Encoded(AudioFile):
    def __init__(self, kind: _Kind, sample_rate_hz: int) -> None:
        import av

        self.content_type = kind.content_type
        self._rate_hz = sample_rate_hz
        self._written = 0
        self._out = _Collector()
        self._av: Any = av
        self._container: Any = av.open(
            self._out, "w", format=kind.container, options={"flush_packets": "1", **kind.container_options}
        )
        self._stream: Any = self._container.add_stream(kind.codec, rate=sample_rate_hz, options=kind.codec_options)
        context: Any = self._stream.codec_context
        context.layout, context.format = "mono", kind.sample_format
        if kind.bit_rate:
            context.bit_rate = kind.bit_rate
        self._resampler: Any = av.AudioResampler(kind.sample_format, "mono", sample_rate_hz)
        self._fifo: Any = av.AudioFifo()

    def push(self, pcm: bytes) -> bytes:
        samples = np.frombuffer(pcm, "<i2")
        if samples.size:
            frame = self._av.AudioFrame.from_ndarray(samples[np.newaxis], format="s16", layout="mono")
            frame.sample_rate = self._rate_hz
            frame.pts = self._written
            self._written += samples.size
            for ready in self._resampler.resample(frame):
                self._fifo.write(ready)
        self._encode(partial=False)
        return self._out.take()

    def finish(self) -> bytes:
        self._encode(partial=True)
        self._container.mux(self._stream.encode(None))
        self._container.close()
        return self._out.take()

    def _encode(self, partial: bool) -> None:
        """Encoders of fixed blocks take whole ones, and a shorter last one."""
        context = self._stream.codec_context
        if not context.is_open:
            context.open()
        size = context.frame_size or round(self._rate_hz * _BLOCK_S)
        while (block := self._fifo.read(size)) is not None:
            self._container.mux(self._stream.encode(block))
        if partial and (rest := self._fifo.read(0, partial=True)) is not None:
            self._container.mux(self._stream.encode(rest))


def audio_file(name: str, sample_rate_hz: int) -> AudioFile:
    """A file of that format. KeyError for one that is not in `FORMATS`."""
    if name == "pcm":
        return _Raw(sample_rate_hz)
    return _Wav(sample_rate_hz) if name == "wav" else _Encoded(_KINDS[name], sample_rate_hz)
