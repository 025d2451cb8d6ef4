"""Silero VAD 6.2 in numpy: one window of sound in, the probability of voice out; one model for all, a state for each.

    576 samples (64 of the window before) ─ short-time spectrum, 4 × 129 ─ four convolutions ─ LSTM 128 ─ probability

The architecture is that of the ONNX file of silero-vad 6.2.3 (MIT, github.com/snakers4/silero-vad), the weights are
those of `weights.py`, in half precision; `test_silero.py` ties both to the original's own output. No threads: every
product is small enough for one core, where starting a second one costs more than it saves.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

from services.gateway.hearing import weights

RATE_HZ = 16_000
WINDOW_SAMPLES = 512
WINDOW_S = WINDOW_SAMPLES / RATE_HZ
_CONTEXT = 64
_HOP, _SPAN, _BINS, _FRAMES = 128, 256, 129, 4
_HIDDEN = 128

Floats = NDArray[np.float32]


class SileroModel:
    """The weights, laid out so that every layer is one product of matrices."""

    def __init__(self, tensors: weights.Weights) -> None:
        basis = tensors["_model.stft.forward_basis_buffer"][:, 0, :]
        self.real = np.ascontiguousarray(basis[:_BINS].T)
        self.imaginary = np.ascontiguousarray(basis[_BINS:].T)
        self.convolutions = [
            (_rows(tensors[f"_model.encoder.{layer}.reparam_conv.weight"]), _bias(tensors, layer)) for layer in range(4)
        ]
        # One tanh serves all gates: sigmoid(x) = (1 + tanh(x / 2)) / 2, so input, forget and output gates are halved.
        halved = np.repeat(np.array([0.5, 0.5, 1.0, 0.5], np.float32), _HIDDEN)
        self.gates_in = np.ascontiguousarray((tensors["_model.decoder.rnn.weight_ih"] * halved[:, None]).T)
        self.gates_hidden = np.ascontiguousarray((tensors["_model.decoder.rnn.weight_hh"] * halved[:, None]).T)
        biases = tensors["_model.decoder.rnn.bias_ih"] + tensors["_model.decoder.rnn.bias_hh"]
        self.gates_bias = biases * halved
        self.out = tensors["_model.decoder.decoder.2.weight"].reshape(_HIDDEN)
        self.out_bias = float(tensors["_model.decoder.decoder.2.bias"])


class Silero:
    """One conversation's detector."""

    def __init__(self, model: SileroModel) -> None:
        self._model = model
        self._sound = np.zeros(_CONTEXT + WINDOW_SAMPLES + _CONTEXT, np.float32)  # context, window, its mirrored end
        self._spectrum = np.zeros((_FRAMES + 2, _BINS), np.float32)  # rows of zeros around: the padding
        self._inner = [np.zeros((6, 128), np.float32), np.zeros((4, 64), np.float32)]
        self._hidden = np.zeros(_HIDDEN, np.float32)
        self._cell = np.zeros(_HIDDEN, np.float32)

    def voice(self, window: Floats) -> float:
        """The probability that these 512 samples in [-1, 1], the next of this conversation, hold voice."""
        model, sound = self._model, self._sound
        sound[_CONTEXT:-_CONTEXT] = window
        sound[-_CONTEXT:] = sound[-_CONTEXT - 2 : -2 * _CONTEXT - 2 : -1]
        frames = _windows(sound, _FRAMES, _SPAN, _HOP)
        np.hypot(frames @ model.real, frames @ model.imaginary, out=self._spectrum[1:-1])
        wide, narrow = self._inner
        wide[1:-1] = _convolve(self._spectrum, 4, 1, *model.convolutions[0])
        narrow[1:-1] = _convolve(wide, 2, 2, *model.convolutions[1])
        inner = _convolve(narrow, 1, 2, *model.convolutions[2])
        last, bias = model.convolutions[3]
        inner = np.maximum(inner @ last[64:128] + bias, 0)  # between two rows of padding
        sound[:_CONTEXT] = window[-_CONTEXT:]
        return self._remember(inner)

    def _remember(self, inner: Floats) -> float:
        model = self._model
        gates = np.tanh(inner[0] @ model.gates_in + self._hidden @ model.gates_hidden + model.gates_bias)
        take, keep, fresh, show = gates.reshape(4, _HIDDEN)
        self._cell = 0.5 * ((1 + keep) * self._cell + (1 + take) * fresh)
        self._hidden = 0.5 * (1 + show) * np.tanh(self._cell)
        logit = float(np.maximum(self._hidden, 0) @ model.out) + model.out_bias
        return float(0.5 + 0.5 * np.tanh(0.5 * logit))


@cache
def shared_model() -> SileroModel:
    """The model, read once per process. NotReady when its weights are not installed."""
    return SileroModel(weights.read(weights.find()))


def _rows(weight: Floats) -> Floats:
    """[out, in, 3] → [3 · in, out], so that three rows that lie behind each other are one vector of the input."""
    return np.ascontiguousarray(weight.transpose(2, 1, 0).reshape(-1, weight.shape[0]))


def _bias(tensors: weights.Weights, layer: int) -> Floats:
    return tensors[f"_model.encoder.{layer}.reparam_conv.bias"]


def _windows(values: Floats, count: int, span: int, hop: int) -> Floats:
    step = values.itemsize
    return np.lib.stride_tricks.as_strided(values, (count, span), (hop * step, step), writeable=False)


def _convolve(padded: Floats, count: int, stride: int, weight: Floats, bias: Floats) -> Floats:
    """ReLU of a convolution over 3 rows: padded [T + 2, in] → [count, out]."""
    width = padded.shape[1]
    summed: Floats = _windows(padded, count, 3 * width, stride * width) @ weight + bias
    return np.maximum(summed, 0)
