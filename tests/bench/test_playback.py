"""The playback clock of the benchmark, on packets written by hand."""

from __future__ import annotations

import numpy as np
import pytest

from bench.playback import Packet, play

RATE_HZ = 1000


def packet(time_s: float, length_s: float, quiet_s: float = 0.0) -> Packet:
    samples = np.full(round(length_s * RATE_HZ), 3000, "<i2")
    samples[: round(quiet_s * RATE_HZ)] = 5
    return Packet(time_s, samples.tobytes())


def test_playing_begins_when_the_prebuffer_is_full_and_is_heard_after_its_silence() -> None:
    heard = play([packet(0.1, 0.08, quiet_s=0.03), packet(0.15, 0.08), packet(0.2, 0.08)], RATE_HZ, 0.1)
    assert (heard.first_byte_s, heard.first_playable_s, heard.last_byte_s) == (0.1, 0.15, 0.2)
    assert heard.first_audible_s == pytest.approx(0.18)
    assert (heard.underruns, heard.missing_s, heard.audio_s) == (0, 0.0, pytest.approx(0.24))
    assert heard.rtf == pytest.approx(0.2 / 0.24)


def test_a_packet_behind_its_moment_is_an_underrun_that_delays_the_rest() -> None:
    heard = play([packet(0.0, 0.1), packet(0.25, 0.1), packet(0.3, 0.1), packet(0.5, 0.1)], RATE_HZ, 0.0)
    assert (heard.underruns, heard.missing_s) == (2, pytest.approx(0.15 + 0.05))


def test_speech_shorter_than_the_prebuffer_begins_when_all_of_it_is_there() -> None:
    assert play([packet(0.1, 0.05), packet(0.3, 0.05)], RATE_HZ, 1.0).first_playable_s == 0.3


def test_silence_is_never_audible_and_nothing_is_nothing() -> None:
    assert play([Packet(0.1, bytes(200))], RATE_HZ, 0.0).first_audible_s is None
    with pytest.raises(ValueError, match="nothing was heard"):
        play([], RATE_HZ, 0.0)
