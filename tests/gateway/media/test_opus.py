"""libopus through ctypes: what is encoded comes back, what is lost is recovered, what is no packet is refused."""

from __future__ import annotations

import random

import numpy as np
import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from common.errors import InvalidRequest, NotReady
from services.gateway.media import opus
from services.gateway.media.opus import Decoder, Encoder
from services.gateway.media.receive import Receiver

LOOK_AHEAD = 104  # 6.5 ms at 16 kHz


def voiced(seconds: float, rate_hz: int = 24000) -> NDArray[np.int16]:
    """Something like a voice: a gliding harmonic sound that comes and goes."""
    time = np.arange(round(seconds * rate_hz)) / rate_hz
    phase = 2 * np.pi * np.cumsum(140 + 40 * np.sin(2 * np.pi * 1.3 * time)) / rate_hz
    sound = sum(np.sin(n * phase) / n for n in range(1, 15)) * (0.55 + 0.45 * np.sin(2 * np.pi * 3 * time))
    return np.asarray(6000 * sound, np.int16)


def packets(encoder: Encoder, samples: NDArray[np.int16]) -> list[bytes]:
    return [encoder.encode(samples[at : at + encoder.block]) for at in range(0, samples.size, encoder.block)]


def snr_db(heard: NDArray[np.int16], said: NDArray[np.int16]) -> float:
    noise = heard.astype(float) - said.astype(float)
    return 10 * float(np.log10((said.astype(float) ** 2).sum() / (noise**2).sum()))


def test_sound_at_24_khz_comes_back_at_16() -> None:
    encoder, decoder = Encoder(), Decoder()
    heard = np.concatenate([decoder.decode(packet) for packet in packets(encoder, voiced(1.0))])
    assert heard.size == 16000
    levels = [np.sqrt((sound.astype(float) ** 2).mean()) for sound in (heard, voiced(1.0, 16000))]
    assert levels[0] == pytest.approx(levels[1], rel=0.15)


def test_packets_are_small_and_redundancy_follows_the_expected_loss() -> None:
    encoder = Encoder()
    encoder.expected_loss = 0.0
    plain = packets(encoder, voiced(1.0))
    encoder.expected_loss = 0.2
    safe = packets(encoder, voiced(1.0))
    assert np.mean([len(packet) for packet in plain]) * 8 * 50 < 40_000
    decoder = Decoder()
    assert sum(map(decoder.has_redundancy, plain)) == 0
    assert sum(map(decoder.has_redundancy, safe)) > 40


def test_redundancy_recovers_more_than_a_guess() -> None:
    encoder = Encoder()
    encoder.expected_loss = 0.2
    sent = packets(encoder, voiced(4.0))
    whole = Decoder()
    said = np.concatenate([whole.decode(packet) for packet in sent])
    lost = set(random.Random(1).sample(range(5, len(sent) - 1), 20))
    recovered, guessed = Decoder(), Decoder()
    heard: tuple[list[NDArray[np.int16]], list[NDArray[np.int16]]] = ([], [])
    for number, packet in enumerate(sent):
        gone = number in lost
        heard[0].append(recovered.recover(sent[number + 1], 320) if gone else recovered.decode(packet))
        heard[1].append(guessed.conceal(320) if gone else guessed.decode(packet))
    at = np.concatenate([np.arange(number * 320, number * 320 + 320) for number in sorted(lost)])
    snrs = [snr_db(np.concatenate(one)[at], said[at]) for one in heard]
    assert snrs[0] > snrs[1] + 2


def test_a_receiver_with_the_real_decoder_misses_nothing() -> None:
    encoder = Encoder()
    encoder.expected_loss = 0.2
    heard: list[NDArray[np.int16]] = []
    receiver = Receiver(Decoder(), lambda samples, _: heard.append(samples))
    chance = random.Random(3)
    sent = packets(encoder, voiced(4.0))
    for number, packet in enumerate(sent):
        if number in (0, len(sent) - 1) or chance.random() >= 0.1:
            receiver.packet(1, number, number * 960, packet, number * 0.02)
    receiver.timer(100.0)
    assert sum(samples.size for samples in heard) == 4 * 16000
    assert receiver.counts.recovered > 5


@given(st.binary(max_size=1500))
def test_no_packet_of_a_stranger_breaks_the_decoder(packet: bytes) -> None:
    decoder = Decoder()
    try:
        samples = decoder.decode(packet)
    except ValueError:
        return
    assert samples.size <= 1920


def test_the_wrong_size_and_rate_are_refused() -> None:
    with pytest.raises(ValueError, match="20 ms"):
        Encoder().encode(np.zeros(100, np.int16))
    with pytest.raises(InvalidRequest):
        Encoder(rate_hz=22050)
    with pytest.raises(InvalidRequest):
        Decoder(rate_hz=44100)


def test_what_encoders_and_decoders_take_is_given_back() -> None:
    process, sound = psutil.Process(), np.zeros(480, np.int16)
    for rounds in (20, 600):
        before = process.memory_info().rss
        for _ in range(rounds):
            Decoder().decode(Encoder().encode(sound))
    assert process.memory_info().rss - before < 15e6  # 600 that are kept take 30 MB and more


def test_a_named_library_that_is_none_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIBOPUS", "/nowhere/libopus.so")
    opus.load.cache_clear()
    try:
        with pytest.raises(NotReady, match="/nowhere"):
            opus.load()
    finally:
        opus.load.cache_clear()
