"""espeak-ng as a function: text → samples and what was being said when.

The only file that knows the library; it serves training and tests, never the product. One process holds one synthesiser
(the library keeps global state). Source of the C interface: espeak-ng 1.51, speak_lib.h.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from tools.mini_voice.voices import RATE_WORDS_PER_MINUTE, VoiceRecipe

SAMPLE_RATE_HZ = 24000
_SYNCHRONOUS, _PHONEME_EVENTS = 2, 1
_PARAMETERS = {"rate": 1, "pitch": 3, "range": 4}
_WORD, _PHONEME = 1, 7
_UTF8_CODES = 1


@dataclass(frozen=True)
class Word:
    """A word of the text, by character, and the second it starts."""

    start_s: float
    first_char: int
    char_count: int


@dataclass(frozen=True)
class Phone:
    """One phoneme (or a pause, whose name starts with an underscore) and the second it starts."""

    start_s: float
    name: str


@dataclass(frozen=True)
class Speech:
    """`samples` float32 at 24 kHz, with the words and phonemes in order."""

    samples: npt.NDArray[np.float32]
    words: tuple[Word, ...]
    phones: tuple[Phone, ...]


class _Event(ctypes.Structure):
    _fields_ = (
        ("type", ctypes.c_int),
        ("unique_identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("audio_position", ctypes.c_int),
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("name", ctypes.c_char * 8),
    )


_Callback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event))


class Synthesiser:
    """Speaks ASCII text with one of the recipes in `voices`."""

    def __init__(self) -> None:
        self._library: Any = ctypes.CDLL("libespeak-ng.so.1")
        self._rate_hz = self._library.espeak_Initialize(_SYNCHRONOUS, 0, None, _PHONEME_EVENTS)
        if self._rate_hz <= 0:
            raise RuntimeError("espeak-ng does not start; is the package installed?")
        self._chunks: list[npt.NDArray[np.int16]] = []
        self._words: list[Word] = []
        self._phones: list[Phone] = []
        self._callback = _Callback(self._collect)  # kept alive: the library holds a bare pointer
        self._library.espeak_SetSynthCallback(self._callback)

    def speak(self, text: str, voice: VoiceRecipe) -> Speech:
        """`text` must be ASCII: espeak counts characters, and so do we."""
        import soxr

        encoded = text.encode("ascii")
        self._chunks, self._words, self._phones = [], [], []
        if self._library.espeak_SetVoiceByName(voice.espeak_name.encode()) != 0:
            raise RuntimeError(f"espeak-ng has no voice {voice.espeak_name}")
        values = {"rate": RATE_WORDS_PER_MINUTE, "pitch": voice.pitch, "range": voice.pitch_range}
        for name, index in _PARAMETERS.items():
            self._library.espeak_SetParameter(index, values[name], 0)
        self._library.espeak_Synth(encoded, len(encoded) + 1, 0, 1, 0, _UTF8_CODES, None, None)
        self._library.espeak_Synchronize()
        native = np.concatenate([*self._chunks, np.zeros(1, np.int16)]).astype(np.float32) / 32768
        samples = soxr.resample(native, self._rate_hz, SAMPLE_RATE_HZ)
        return Speech(samples * np.float32(voice.gain), tuple(self._words), tuple(self._phones))

    def _collect(self, wave: Any, count: int, events: Any) -> int:
        if wave and count > 0:
            self._chunks.append(np.ctypeslib.as_array(wave, (count,)).copy())
        index = 0
        while events[index].type:
            event = events[index]
            start_s = event.sample / self._rate_hz
            if event.type == _WORD:
                self._words.append(Word(start_s, event.text_position - 1, event.length))
            elif event.type == _PHONEME:
                self._phones.append(Phone(start_s, event.name.decode("utf-8", "replace")))
            index += 1
        return 0


@cache
def synthesiser() -> Synthesiser:
    """The one of this process."""
    return Synthesiser()
