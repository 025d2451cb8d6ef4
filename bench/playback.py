"""What a listener would have heard: packets and when they came → when sound began, and where it stopped. Pure.

The player waits until `prebuffer_s` of sound is there (or all of it), then plays on a clock that never waits: a packet
that comes after its moment is an underrun, and everything behind it is later by what was missing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

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


def listen(pieces: Sequence[tuple[float, float]], prebuffer_s: float) -> tuple[Heard, list[float]]:
    """Pieces of sound as (when it came, how long it sounds), in their order: what was heard, without what is audible,
    and when each piece was played. ValueError when there are none."""
    if not pieces:
        raise ValueError("nothing was heard")
    begin_s, buffered_s = pieces[-1][0], 0.0
    for time_s, length_s in pieces:
        buffered_s += length_s
        if buffered_s >= prebuffer_s:
            begin_s = time_s
            break
    clock_s, underruns, missing_s, played_s = begin_s, 0, 0.0, []
    for time_s, length_s in pieces:
        if time_s > clock_s:
            underruns += 1
            missing_s += time_s - clock_s
            clock_s = time_s
        played_s.append(clock_s)
        clock_s += length_s
    audio_s = sum(length_s for _, length_s in pieces)
    return Heard(pieces[0][0], begin_s, None, pieces[-1][0], audio_s, underruns, missing_s), played_s


def play(packets: Sequence[Packet], sample_rate_hz: int, prebuffer_s: float) -> Heard:
    """Play packets in their order. ValueError when there are none."""
    pieces = [(packet.time_s, len(packet.pcm) / 2 / sample_rate_hz) for packet in packets]
    heard, played_s = listen(pieces, prebuffer_s)
    for packet, begin_s in zip(packets, played_s, strict=True):
        if (sample := _first_audible(packet.pcm)) is not None:
            return replace(heard, first_audible_s=begin_s + sample / sample_rate_hz)
    return heard


def _first_audible(pcm: bytes) -> int | None:
    loud = np.abs(np.frombuffer(pcm, "<i2").astype(np.int32)) > AUDIBLE * 32768
    return int(loud.argmax()) if loud.any() else None
