"""What a listener would have heard: packets and when they came → when sound began, and where it stopped. Pure.

The player waits until `prebuffer_s` of sound is there (or all of it), then plays on a clock that never waits: a packet
that comes after its moment is an underrun, and everything behind it is later by what was missing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

AUDIBLE = 0.003  # -50 dB of full scale: below it is silence


@dataclass(frozen=True)
class Packet:
    """Sound that came `time_s` after the text was sent: 16-bit samples."""

    time_s: float
    pcm: bytes


@dataclass(frozen=True)
class Heard:
    """Times count from the text. `first_audible_s` is None for speech that is all silence."""

    first_byte_s: float
    first_playable_s: float
    first_audible_s: float | None
    last_byte_s: float
    audio_s: float
    underruns: int
    missing_s: float

    @property
    def rtf(self) -> float:
        """Time until all of it was there ÷ how long it sounds."""
        return self.last_byte_s / self.audio_s


def play(packets: Sequence[Packet], sample_rate_hz: int, prebuffer_s: float) -> Heard:
    """Play packets in their order. ValueError when there are none."""
    if not packets:
        raise ValueError("nothing was heard")
    lengths_s = [len(packet.pcm) / 2 / sample_rate_hz for packet in packets]
    begin_s, buffered_s = packets[-1].time_s, 0.0
    for packet, length_s in zip(packets, lengths_s, strict=True):
        buffered_s += length_s
        if buffered_s >= prebuffer_s:
            begin_s = packet.time_s
            break
    clock_s, underruns, missing_s, audible_s = begin_s, 0, 0.0, None
    for packet, length_s in zip(packets, lengths_s, strict=True):
        if packet.time_s > clock_s:
            underruns += 1
            missing_s += packet.time_s - clock_s
            clock_s = packet.time_s
        if audible_s is None and (sample := _first_audible(packet.pcm)) is not None:
            audible_s = clock_s + sample / sample_rate_hz
        clock_s += length_s
    return Heard(packets[0].time_s, begin_s, audible_s, packets[-1].time_s, sum(lengths_s), underruns, missing_s)


def _first_audible(pcm: bytes) -> int | None:
    loud = np.abs(np.frombuffer(pcm, "<i2").astype(np.int32)) > AUDIBLE * 32768
    return int(loud.argmax()) if loud.any() else None
