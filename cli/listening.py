"""What is heard of one utterance: samples passed on as they come, counts and times for the report."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from cli.utterance import ended_facts


class Listener:
    """Takes the responses of `Decode` and of `Synthesize`, whose payloads have the same names."""

    def __init__(self, sink: Callable[[bytes], object], sample_rate_hz: int, sample_bytes: int) -> None:
        self.ended: dict[str, Any] | None = None
        self.seed: int | None = None
        self._sink, self._rate, self._sample_bytes = sink, sample_rate_hz, sample_bytes
        self._bytes = 0
        self._begin_s = self._first_s = self._end_s = 0.0

    def sending(self) -> None:
        """Called before anything that can be heard is sent; the clock begins with the first time."""
        self._begin_s = self._begin_s or time.monotonic()

    def receive(self, response: Any) -> bool:
        """Pass on one response; True once the utterance has ended."""
        kind = response.WhichOneof("payload")
        if kind == "started":
            self.seed = getattr(response.started, "seed", None)
        elif kind == "audio":
            self._first_s = self._first_s or time.monotonic()
            self._bytes += len(response.audio.payload)
            self._sink(response.audio.payload)
        elif kind == "ended":
            self._end_s = time.monotonic()
            self.ended = ended_facts(response.ended)
        return self.ended is not None

    @property
    def sample_count(self) -> int:
        return self._bytes // self._sample_bytes

    @property
    def audio_s(self) -> float:
        return self.sample_count / self._rate

    def times(self) -> dict[str, float]:
        """As seen from here, from the first thing sent: to the first packet, and to the end over the audio's length.

        Nothing of an utterance without sound."""
        if not self._bytes:
            return {}
        return {
            "first_packet_ms": round(1000 * (self._first_s - self._begin_s), 1),
            "rtf": round((self._end_s - self._begin_s) / self.audio_s, 4),
        }
