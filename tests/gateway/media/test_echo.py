"""Echo in synthetic rooms: our own voice never comes back, and a person who speaks over it is heard."""

from __future__ import annotations

import random

import numpy as np
import pytest
from numpy.typing import NDArray

from services.gateway.media.echo import EchoCanceller
from services.gateway.media.echo_detector import EchoDetector
from tests.gateway.media.rooms import Samples, added, echo, noise, voice

SECONDS = 6
FLOOR = 20.0  # -64 dBFS


def canceller() -> EchoCanceller:
    found = EchoCanceller.if_installed()
    assert found is not None, "livekit is a dependency of the project"
    return found


def passed(near: Samples, far: Samples, burst: int = 1, cancels: EchoCanceller | None = None) -> Samples:
    """What is left of the microphone, whose packets come in bursts of random size up to `burst`."""
    cancels, chance = cancels or canceller(), random.Random(0)
    waiting: list[Samples] = []
    out: list[Samples] = []
    for played, heard in zip(far.reshape(-1, 480), near[: far.size * 2 // 3].reshape(-1, 320), strict=True):
        cancels.played(played)
        waiting.append(heard)
        if len(waiting) >= burst or chance.random() < 0.4:
            out += [cancels.cleaned(samples) for samples in waiting]
            waiting.clear()
    out += [cancels.cleaned(samples) for samples in waiting]
    return np.concatenate(out)


def levels_db(samples: Samples) -> NDArray[np.float64]:
    """Of each second, dBFS."""
    seconds = samples[: samples.size // 16000 * 16000].reshape(-1, 16000).astype(float)
    return np.asarray(20 * np.log10(np.sqrt(np.mean(seconds**2, axis=1)) / 32768 + 1e-9))


@pytest.mark.parametrize(("delay_s", "gain_db"), [(0.06, 0.0), (0.2, -10.0), (0.4, -20.0)])
def test_our_own_voice_does_not_come_back_from_a_room(delay_s: float, gain_db: float) -> None:
    far = voice(SECONDS, 24000, 120)
    near = added(echo(far, delay_s, gain_db), noise(SECONDS * 16000, FLOOR))
    cancels = canceller()
    left = passed(near, far, burst=4, cancels=cancels)
    assert (levels_db(near)[1:] - levels_db(left)[1:]).min() > 18
    assert levels_db(left)[2:].max() < -50
    assert cancels.found
    assert cancels.reduction_db is not None
    assert cancels.reduction_db > 18


@pytest.mark.parametrize("quiet_s", [0.7, 2.26])
def test_an_echo_that_takes_long_is_never_taken_for_none(quiet_s: float) -> None:
    speech = voice(5, 24000, 120, seed=5)[: 2 * 24000]
    far = np.concatenate([np.zeros(round(quiet_s * 50) * 480, np.int16), speech])
    near = added(echo(far, 0.4, -6.0), noise(far.size * 2 // 3, FLOOR))
    cancels = canceller()
    for played, heard in zip(far.reshape(-1, 480), near.reshape(-1, 320), strict=True):
        passed(heard, played, cancels=cancels)
        assert not cancels.bypassed
    assert cancels.found


def test_a_person_who_speaks_over_the_echo_is_heard() -> None:
    far = voice(SECONDS, 24000, 120)
    person = np.concatenate([np.zeros(4 * 16000, np.int16), voice(SECONDS - 4, 16000, 210, seed=3)])
    near = added(echo(far, 0.1, -10.0), noise(SECONDS * 16000, FLOOR), person)
    left = levels_db(passed(near, far, burst=3))
    assert left[2:4].max() < -50
    assert left[4:].min() > -28


def test_without_an_echo_a_person_who_speaks_over_us_is_untouched() -> None:
    far = voice(SECONDS, 24000, 120)
    person = np.concatenate([np.zeros(2 * 16000, np.int16), voice(SECONDS - 2, 16000, 190, seed=4)])
    near = added(person, noise(SECONDS * 16000, FLOOR))
    cancels = canceller()
    left = passed(near, far, cancels=cancels)
    assert cancels.bypassed
    assert np.array_equal(left[2 * 16000 :], near[2 * 16000 :])


def test_an_echo_that_begins_later_is_found() -> None:
    far = voice(8, 24000, 120)
    cancels = canceller()
    passed(noise(3 * 16000, FLOOR), far[: 3 * 24000], cancels=cancels)
    assert cancels.bypassed
    heard = added(echo(far, 0.1, -6.0), noise(8 * 16000, FLOOR))
    left = levels_db(passed(heard[3 * 16000 :], far[3 * 24000 :], cancels=cancels))
    assert cancels.found
    assert left[-1] < -50


def test_a_clock_that_drifts_does_not_make_the_echo_younger_than_its_sound() -> None:
    far = voice(SECONDS, 24000, 120)
    near = added(echo(far, 0.1, -6.0), noise(SECONDS * 16000, FLOOR))
    cancels = canceller()
    for block in far[: 24000 // 2].reshape(-1, 480):  # half a second that the microphone was away for
        cancels.played(block)
    passed(noise(16000 * 6, FLOOR), voice(6, 24000, 140, seed=9, level=0.5), cancels=cancels)
    left = levels_db(passed(near, far, cancels=cancels))
    assert left[-1] < -50


def test_any_length_goes_in_and_nothing_is_lost() -> None:
    cancels = canceller()
    near = noise(5000, 300.0)
    out = [cancels.cleaned(part) for part in np.split(near, [1, 100, 161, 900, 901, 4000])]
    assert sum(part.size for part in out) == 5000 // 160 * 160


def test_slots_in_which_nothing_went_out_count_as_silence() -> None:
    far = voice(SECONDS, 24000, 120)
    blocks = far.reshape(-1, 480).copy()
    blocks[100:150] = 0
    near = added(echo(blocks.reshape(-1), 0.1, -6.0), noise(SECONDS * 16000, FLOOR)).reshape(-1, 320)
    cancels = canceller()
    out = []
    for number, block in enumerate(blocks):
        if not 100 <= number < 150:
            cancels.played(block, missed=50 if number == 150 else 0)
        out.append(cancels.cleaned(near[number]))
    assert levels_db(np.concatenate(out))[-1] < -50


@pytest.mark.parametrize("seed", range(6))
def test_another_voice_is_no_echo(seed: int) -> None:
    detector = EchoDetector()
    far = echo(voice(10, 24000, 120), 0.0, 0.0)
    near = added(voice(10, 16000, 150.0 + 20 * seed, seed=seed + 4), noise(160000, FLOOR))
    for at in range(0, 160000, 160):
        detector.push(far[at : at + 160], near[at : at + 160])
    assert detector.verdict is False


@pytest.mark.parametrize("seed", [2, 3, 5, 6])
def test_phrases_over_a_microphone_that_is_quiet_otherwise_are_no_echo(seed: int) -> None:
    chance, detector = np.random.default_rng(seed), EchoDetector()
    far = voice(40, 16000, 110, seed)
    near, at, verdicts = np.zeros_like(far), 8000, set()
    for number, pitch_hz in enumerate([110, 200, 140] * 6):
        phrase = voice(1.4, 16000, pitch_hz, 100 * seed + number)
        if at + phrase.size < near.size:
            near[at : at + phrase.size] = phrase
        at += phrase.size + int(chance.integers(16000, 48000))
    for at in range(0, far.size - 160, 160):
        detector.push(far[at : at + 160], near[at : at + 160])
        verdicts.add(detector.verdict)
    assert verdicts == {None, False}


def test_no_verdict_is_given_while_nothing_was_played() -> None:
    detector = EchoDetector()
    for _ in range(500):
        detector.push(np.zeros(160, np.int16), noise(160, 1000.0))
    assert detector.verdict is None
