"""Synthetic rooms and voices: what a microphone hears of a loudspeaker, without either."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Samples = NDArray[np.int16]


def voice(seconds: float, rate_hz: int, pitch_hz: float, seed: int = 0, level: float = 3000.0) -> Samples:
    """Something like speech: a gliding harmonic sound under a moving formant, in syllables, with some breath."""
    chance = np.random.default_rng(seed)
    count = round(seconds * rate_hz)
    time = np.arange(count) / rate_hz
    glide = 1 + 0.25 * _wandering(chance, time, 3.0)
    phase = 2 * np.pi * np.cumsum(pitch_hz * glide) / rate_hz
    formant_hz = 900 + 500 * _wandering(chance, time, 5.0)
    sound = np.zeros(count)
    for harmonic in range(1, int(3400 / pitch_hz)):
        weight = np.exp(-(((harmonic * pitch_hz - formant_hz) / 900) ** 2)) + 0.3 / harmonic
        sound += weight * np.sin(harmonic * phase)
    sound += 0.3 * chance.standard_normal(count)
    syllables = np.clip(2 * _wandering(chance, time, 8.0) + 0.6, 0, 1)
    sound *= syllables
    return np.asarray(level * sound / np.sqrt(np.mean(sound**2)), np.int16)


def _wandering(chance: np.random.Generator, time: NDArray[np.float64], rate_hz: float) -> NDArray[np.float64]:
    """-1 to 1, another value so many times a second, and all between."""
    knots = np.arange(0, time[-1] + 2, 1 / rate_hz)
    return np.interp(time, knots, chance.uniform(-1, 1, knots.size))


def echo(played: Samples, delay_s: float, gain_db: float, seed: int = 1, rate_hz: int = 24000) -> Samples:
    """`played` as a microphone at 16 kHz hears it in a small room, so much later and fainter."""
    chance = np.random.default_rng(seed)
    taps = chance.standard_normal(round(0.12 * rate_hz)) * np.exp(-np.arange(round(0.12 * rate_hz)) / (0.03 * rate_hz))
    taps[0] = 3.0
    taps /= np.sqrt(np.sum(taps**2))
    size = 1 << int(np.ceil(np.log2(played.size + taps.size)))
    heard = np.fft.irfft(np.fft.rfft(played.astype(float), size) * np.fft.rfft(taps, size), size)[: played.size]
    heard = np.concatenate([np.zeros(round(delay_s * rate_hz)), heard])[: played.size] * 10 ** (gain_db / 20)
    return resampled(heard, rate_hz, 16000)


def resampled(samples: NDArray[np.float64], from_hz: int, to_hz: int) -> Samples:
    """By the spectrum; good enough for a room."""
    count = round(samples.size * to_hz / from_hz)
    spectrum = np.fft.rfft(samples)[: count // 2 + 1]
    return np.asarray(np.clip(np.fft.irfft(spectrum, count) * to_hz / from_hz, -32768, 32767), np.int16)


def noise(count: int, level: float, seed: int = 5) -> Samples:
    return np.asarray(np.random.default_rng(seed).standard_normal(count) * level, np.int16)


def added(*sounds: Samples) -> Samples:
    """Together, clipped."""
    total = np.zeros(max(sound.size for sound in sounds))
    for sound in sounds:
        total[: sound.size] += sound
    return np.asarray(np.clip(total, -32768, 32767), np.int16)
