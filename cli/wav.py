"""WAV files, written while the samples come: 16-bit integers or 32-bit floats, which the standard library cannot."""

from __future__ import annotations

import struct
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Literal

SampleFormat = Literal["s16", "f32"]
SAMPLE_BYTES: dict[SampleFormat, int] = {"s16": 2, "f32": 4}
_FORMAT_TAGS: dict[SampleFormat, int] = {"s16": 1, "f32": 3}
_HEADER = struct.Struct("<4sI4s4sIHHIIHH4sI")


class WavWriter:
    """A context manager; the sizes in the header are set when it closes, also after an error."""

    def __init__(self, path: Path, sample_rate_hz: int, sample_format: SampleFormat, channel_count: int = 1) -> None:
        self._path, self._rate, self._format, self._channels = path, sample_rate_hz, sample_format, channel_count
        self._written = 0
        self._file: BinaryIO

    def __enter__(self) -> WavWriter:
        self._file = self._path.open("wb")
        self._file.write(self._header())
        return self

    def write(self, samples: bytes) -> None:
        """Append whole samples, little-endian, channels interleaved."""
        self._file.write(samples)
        self._written += len(samples)

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._file.seek(0)
        self._file.write(self._header())
        self._file.close()

    def _header(self) -> bytes:
        width = SAMPLE_BYTES[self._format] * self._channels
        tag, bits = _FORMAT_TAGS[self._format], 8 * SAMPLE_BYTES[self._format]
        form = (tag, self._channels, self._rate, self._rate * width, width, bits)
        return _HEADER.pack(
            b"RIFF", _HEADER.size - 8 + self._written, b"WAVE", b"fmt ", 16, *form, b"data", self._written
        )
