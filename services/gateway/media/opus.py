"""Opus by ctypes: libopus as it lies in PyAV's wheel, or as named, or the system's. Sound is mono int16.

PyAV's own encoder would resample to 48 kHz (20 ms more) and knows neither in-band FEC by loss nor concealment. Not
thread-safe: one encoder or decoder belongs to one thread; `expected_loss` alone may be set from another.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import functools
import importlib.util
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common.errors import Broken, InvalidRequest, NotReady

Samples = NDArray[np.int16]

APPLICATION_VOIP = 2048  # opus_defines.h of libopus 1.x, like all numbers here
SIGNAL_VOICE = 3001
SET_BITRATE, SET_COMPLEXITY, SET_SIGNAL = 4002, 4010, 4024
SET_INBAND_FEC, SET_PACKET_LOSS_PERC, SET_DTX = 4012, 4014, 4016
MAX_PACKET_BYTES = 1275  # RFC 6716, of one frame
MAX_PACKET_S = 0.12
FEC_LIMIT = 0.2  # more redundancy than for this loss costs more speech than it saves
TYPICAL_LOSS = 0.05  # hinted until the far end has reported


class Encoder:
    """Sound to packets of 20 ms; look-ahead 6.5 ms."""

    def __init__(self, rate_hz: int = 24000, bitrate: int = 32000, complexity: int = 5) -> None:
        self._lib = load()
        self.rate_hz = rate_hz
        self.block = rate_hz // 50
        self.expected_loss = TYPICAL_LOSS
        self._hinted = -1
        self._packet = ctypes.create_string_buffer(MAX_PACKET_BYTES)
        error = ctypes.c_int()
        self._encoder = self._lib.opus_encoder_create(rate_hz, 1, APPLICATION_VOIP, ctypes.byref(error))
        if error.value:
            raise InvalidRequest(f"Opus has no encoder for {rate_hz} Hz.", reason="UNSUPPORTED")
        for request, value in (
            (SET_BITRATE, bitrate),
            (SET_COMPLEXITY, complexity),
            (SET_SIGNAL, SIGNAL_VOICE),
            (SET_INBAND_FEC, 1),
            (SET_DTX, 0),
        ):
            self._control(request, value)

    def encode(self, samples: Samples) -> bytes:
        """20 ms, C-contiguous."""
        if samples.size != self.block:
            raise ValueError(f"{samples.size} samples are not 20 ms at {self.rate_hz} Hz")
        hint = round(100 * min(self.expected_loss, FEC_LIMIT))
        if hint != self._hinted:
            self._control(SET_PACKET_LOSS_PERC, hint)
            self._hinted = hint
        size = self._lib.opus_encode(self._encoder, samples.ctypes.data, samples.size, self._packet, MAX_PACKET_BYTES)
        if size < 0:
            raise Broken(f"Opus could not encode: error {size}.")
        return self._packet.raw[:size]

    def _control(self, request: int, value: int) -> None:
        error = self._lib.opus_encoder_ctl(self._encoder, request, ctypes.c_int(value))
        if error:
            raise Broken(f"Opus refused setting {request} to {value}: error {error}.")

    def __del__(self) -> None:
        if getattr(self, "_encoder", None):
            self._lib.opus_encoder_destroy(self._encoder)


class Decoder:
    """Packets to sound at the wished rate, whatever rate and channels they were made from."""

    def __init__(self, rate_hz: int = 16000) -> None:
        self._lib = load()
        self.rate_hz = rate_hz
        error = ctypes.c_int()
        self._decoder = self._lib.opus_decoder_create(rate_hz, 1, ctypes.byref(error))
        if error.value:
            raise InvalidRequest(f"Opus has no decoder for {rate_hz} Hz.", reason="UNSUPPORTED")
        self._room: Samples = np.zeros(round(rate_hz * MAX_PACKET_S), np.int16)

    def decode(self, packet: bytes) -> Samples:
        """ValueError for what is no Opus packet."""
        return self._decoded(packet, self._room.size, fec=False)

    def recover(self, packet: bytes, count: int) -> Samples:
        """The `count` samples that were lost just before `packet`: from its redundancy, or concealed."""
        return self._decoded(packet, count, fec=True)

    def conceal(self, count: int) -> Samples:
        """`count` samples (a multiple of 2.5 ms) that might have followed."""
        return self._decoded(None, count, fec=False)

    def duration(self, packet: bytes) -> int:
        """Samples in a packet; ValueError for what is no Opus packet."""
        count: int = self._lib.opus_packet_get_nb_samples(packet, len(packet), self.rate_hz)
        if count <= 0 or count > self._room.size:
            raise ValueError("not an Opus packet")
        return count

    def has_redundancy(self, packet: bytes) -> bool:
        """Whether `recover` gives what was said, rather than a guess."""
        return self._lib.has_lbrr is not None and self._lib.has_lbrr(packet, len(packet)) == 1

    def _decoded(self, packet: bytes | None, count: int, fec: bool) -> Samples:
        size = len(packet) if packet else 0
        done = self._lib.opus_decode(self._decoder, packet, size, self._room.ctypes.data, count, int(fec))
        if done < 0:
            raise ValueError(f"not an Opus packet: error {done}")
        return self._room[:done].copy()

    def __del__(self) -> None:
        if getattr(self, "_decoder", None):
            self._lib.opus_decoder_destroy(self._decoder)


class _Library:
    """The functions of libopus with their types."""

    def __init__(self, path: str) -> None:
        lib = ctypes.CDLL(path)
        pointer, number, text = ctypes.c_void_p, ctypes.c_int, ctypes.c_char_p
        self.path = path
        self.opus_encoder_create = _typed(lib, "opus_encoder_create", pointer, number, number, number, pointer)
        self.opus_encode = _typed(lib, "opus_encode", number, pointer, pointer, number, text, number)
        self.opus_encoder_ctl = _typed(lib, "opus_encoder_ctl", number, pointer, number)  # variadic: the fixed ones
        self.opus_encoder_destroy = _typed(lib, "opus_encoder_destroy", None, pointer)
        self.opus_decoder_create = _typed(lib, "opus_decoder_create", pointer, number, number, pointer)
        self.opus_decode = _typed(lib, "opus_decode", number, pointer, text, number, pointer, number, number)
        self.opus_decoder_destroy = _typed(lib, "opus_decoder_destroy", None, pointer)
        self.opus_packet_get_nb_samples = _typed(lib, "opus_packet_get_nb_samples", number, text, number, number)
        self.has_lbrr = (  # since libopus 1.4
            _typed(lib, "opus_packet_has_lbrr", number, text, number) if hasattr(lib, "opus_packet_has_lbrr") else None
        )
        self.version = str(_typed(lib, "opus_get_version_string", text)().decode())


def _typed(lib: ctypes.CDLL, name: str, result: Any, *arguments: Any) -> Any:
    function = getattr(lib, name)
    function.restype, function.argtypes = result, list(arguments)
    return function


@functools.cache
def load() -> _Library:
    """libopus, once per process: `LIBOPUS` (a path) wins over PyAV's, that over the system's. `NotReady` if none."""
    tried = []
    for path in _candidates():
        try:
            return _Library(path)
        except (OSError, AttributeError) as error:
            tried.append(f"{path}: {error}")
    raise NotReady("libopus was not found; install `av`, or name it in LIBOPUS. " + "; ".join(tried))


def _candidates() -> Iterator[str]:
    if named := os.environ.get("LIBOPUS"):
        yield named
        return
    spec = importlib.util.find_spec("av")
    if spec is not None and spec.origin is not None:
        package = Path(spec.origin).parent
        for folder in (package.parent / "av.libs", package / ".dylibs"):  # where auditwheel and delocate put it
            yield from sorted(str(path) for path in folder.glob("libopus*") if path.is_file())
    if (system := ctypes.util.find_library("opus")) is not None:
        yield system
