"""Whether a turn sounds complete, by a smart-turn model as an ONNX file (v3, BSD-2, github.com/pipecat-ai/smart-turn).

The model hears the last 8 s, as the log-mel spectrogram of Whisper: silence before them, normalised as a whole,
80 bands × 800 frames. It is a file of its own that whoever wants it downloads and names; `onnxruntime` comes with the
extra `smart-turn`. One thread: two on a busy machine took nearly twice as long as one.
"""

from __future__ import annotations

import importlib
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common.errors import NotReady

RATE_HZ = 16_000
SAMPLES = 8 * RATE_HZ
BANDS, FRAMES = 80, 800
_SPAN, _HOP = 400, 160
_BINS = _SPAN // 2 + 1

Floats = NDArray[np.float32]


class SmartTurnModel:
    """A model file, loaded once for all conversations. NotReady when the file or the library cannot be used."""

    def __init__(self, path: Path) -> None:
        try:
            runtime: Any = importlib.import_module("onnxruntime")
            faults: Any = importlib.import_module("onnxruntime.capi.onnxruntime_pybind11_state")
        except ImportError as error:
            raise NotReady("A smart-turn model needs onnxruntime: pip install -e '.[smart-turn]'.") from error
        if not path.is_file():
            raise NotReady(f"There is no turn model at {path}.")
        options = runtime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        try:
            self._session = runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except (faults.Fail, faults.InvalidProtobuf, faults.InvalidGraph, faults.NotImplemented) as error:
            raise NotReady(f"{path.name} cannot be loaded: {error}") from error
        inputs = self._session.get_inputs()
        if len(inputs) != 1 or list(inputs[0].shape)[-2:] != [BANDS, FRAMES]:
            raise NotReady(f"{path.name} is no smart-turn v3 model: it does not take {BANDS} × {FRAMES} bands.")
        self._input = inputs[0].name

    def p_complete(self, samples: NDArray[np.int16], text: str = "") -> float:
        """By the sound alone; about 45 ms of one core."""
        (output, *_) = self._session.run(None, {self._input: log_mel(samples)[None]})
        return float(np.clip(np.asarray(output).reshape(-1)[0], 0.0, 1.0))


def log_mel(samples: NDArray[np.int16]) -> Floats:
    """Whisper's features of the last 8 s: [80, 800] float32."""
    sound = np.zeros(SAMPLES, np.float64)
    last = samples[-SAMPLES:]
    if last.size:
        sound[-last.size :] = last / 32768
    sound = (sound - sound.mean()) / np.sqrt(sound.var() + 1e-7)
    padded = np.pad(sound, _SPAN // 2, mode="reflect")
    frames = np.lib.stride_tricks.sliding_window_view(padded, _SPAN)[: FRAMES * _HOP : _HOP]
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(_SPAN) / _SPAN)
    power = np.abs(np.fft.rfft(frames * window, axis=1)) ** 2
    bands = np.log10(np.maximum(_filters() @ power.T, 1e-10))
    features: Floats = ((np.maximum(bands, bands.max() - 8) + 4) / 4).astype(np.float32)
    return features


@cache
def _filters() -> NDArray[np.float64]:
    """Triangles on Slaney's mel scale from 0 to 8 kHz, each of the same area: [80, 201]."""
    frequencies = np.linspace(0, RATE_HZ / 2, _BINS)
    corners = _from_mel(np.linspace(0, _to_mel(RATE_HZ / 2), BANDS + 2))
    widths = np.diff(corners)
    slopes = corners[:, None] - frequencies[None, :]
    rising, falling = -slopes[:-2] / widths[:-1, None], slopes[2:] / widths[1:, None]
    return np.maximum(0, np.minimum(rising, falling)) * (2 / (corners[2:] - corners[:-2]))[:, None]


def _to_mel(frequency: float) -> float:
    """Linear up to 1 kHz (15 mel), logarithmic above."""
    return frequency * 3 / 200 if frequency < 1000 else 15 + float(np.log(frequency / 1000)) * 27 / float(np.log(6.4))


def _from_mel(mels: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.where(mels < 15, mels * 200 / 3, 1000 * np.exp((np.maximum(mels, 15) - 15) * np.log(6.4) / 27))
