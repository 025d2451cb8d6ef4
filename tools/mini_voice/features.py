"""Sound → what a frame looks like: log-mel bands and pitch every 10 ms, eight of each per frame. NumPy only.

Forty bands do not resolve the harmonics of a voice, so the envelope says what is said and the pitch track says how
high: two things that are predicted from different causes, kept apart.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

SAMPLE_RATE_HZ = 24000
FRAME_SAMPLES = 1920
HOP_SAMPLES = 240
HOPS = FRAME_SAMPLES // HOP_SAMPLES
BANDS = 40
WINDOW, FFT = 512, 1024
_PITCH_WINDOW, _PITCH_FFT = 1024, 2048
_LOWEST_HZ, _HIGHEST_HZ = 60.0, 11000.0
_PITCH_RANGE_HZ = (65.0, 330.0)
FLOOR = 2e-6  # power; the loudest bands reach about 1, so nearly 60 dB below them
_VOICED = 0.6

Array = npt.NDArray[np.float32]


def frames_of(samples: Array) -> Array:
    """Samples [N] → [F, 1920], the last frame filled up with silence."""
    count = -(-len(samples) // FRAME_SAMPLES)
    padded = np.zeros(count * FRAME_SAMPLES, np.float32)
    padded[: len(samples)] = samples
    return padded.reshape(count, FRAME_SAMPLES)


def log_mel(samples: Array) -> Array:
    """Samples [F·1920] → natural log power [F, 8, 40], floored."""
    power = np.abs(np.fft.rfft(_windows(samples, WINDOW) * hann(WINDOW), FFT)) ** 2 / WINDOW
    mel = np.log(np.maximum(power.astype(np.float32) @ mel_matrix(), FLOOR))
    return np.asarray(mel.reshape(-1, HOPS, BANDS), np.float32)


def pitch(samples: Array) -> Array:
    """Samples [F·1920] → fundamental in Hz [F, 8], 0 where there is none."""
    windows = _windows(samples, _PITCH_WINDOW) * hann(_PITCH_WINDOW)
    spectrum = np.abs(np.fft.rfft(windows, _PITCH_FFT)) ** 2
    spectrum[:, int(1500 * _PITCH_FFT / SAMPLE_RATE_HZ) :] = 0  # harmonics of the voice alone
    correlation = np.fft.irfft(spectrum)[:, : _PITCH_WINDOW // 2] / _own_correlation()
    energy = correlation[:, :1]
    shortest, longest = (int(SAMPLE_RATE_HZ / hz) for hz in reversed(_PITCH_RANGE_HZ))
    normal = correlation[:, shortest : longest + 1] / np.maximum(energy, 1e-9)
    best = normal.max(axis=1)
    lag = shortest + _first_peak(normal, 0.9 * best)
    voiced = (best > _VOICED) & (energy[:, 0] > 1e-2)
    return np.where(voiced, SAMPLE_RATE_HZ / lag, 0).reshape(-1, HOPS).astype(np.float32)


def _first_peak(values: npt.NDArray[Any], threshold: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
    """Index of each row's first local maximum above its threshold: the global one may lie an octave lower."""
    inner = values[:, 1:-1]
    peak = (inner >= values[:, :-2]) & (inner >= values[:, 2:]) & (inner >= threshold[:, None])
    return np.asarray(np.where(peak.any(axis=1), peak.argmax(axis=1) + 1, values.argmax(axis=1)), np.int64)


def _windows(samples: Array, size: int) -> Array:
    """One window per hop, centred in it: [N / 240, size]."""
    before = (size - HOP_SAMPLES) // 2
    padded = np.pad(samples, (before, size - HOP_SAMPLES - before))
    return np.lib.stride_tricks.sliding_window_view(padded, size)[::HOP_SAMPLES]


@cache
def hann(size: int) -> Array:
    return np.hanning(size + 1)[:size].astype(np.float32)


@cache
def _own_correlation() -> Array:
    """The window's own, which a longer lag must not be punished for."""
    own = np.fft.irfft(np.abs(np.fft.rfft(hann(_PITCH_WINDOW), _PITCH_FFT)) ** 2)[: _PITCH_WINDOW // 2]
    return np.asarray(own / own[0], np.float32)


@cache
def mel_matrix() -> Array:
    """Triangles, equally spaced on the mel scale, unit area: [513, 40]."""
    edges = _hz(np.linspace(_mel(_LOWEST_HZ), _mel(_HIGHEST_HZ), BANDS + 2))
    hz = np.arange(FFT // 2 + 1) * SAMPLE_RATE_HZ / FFT
    rise = (hz[:, None] - edges[:-2]) / (edges[1:-1] - edges[:-2])
    fall = (edges[2:] - hz[:, None]) / (edges[2:] - edges[1:-1])
    triangles = np.maximum(0, np.minimum(rise, fall))
    return np.asarray(triangles / np.maximum(triangles.sum(axis=0), 1e-9), np.float32)


def _mel(hz: float) -> float:
    return float(2595 * np.log10(1 + hz / 700))


def _hz(mel: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return np.asarray(700 * (10 ** (mel / 2595) - 1))
