"""The way in of one conversation: a person's sound, cleaned of ours, kept by position, judged window by window."""

from __future__ import annotations

from collections.abc import Iterator

from services.gateway.hearing.listener import Listener
from services.gateway.media.echo import EchoCanceller
from services.gateway.session.ports import Samples
from services.gateway.session.recording import Recording
from services.gateway.turns.events import EchoReport, VoiceWindow

ECHO_FAILS_DB = 6.0  # of echo taken out; less, and our own voice may sound like theirs


class Ears:
    """`echo` may be exchanged at any time."""

    def __init__(self, listener: Listener, recording: Recording) -> None:
        self._listener = listener
        self.recording = recording
        self.echo: EchoCanceller | None = None
        self._report = EchoReport(present=True)

    def hear(self, samples: Samples, arrived_s: float) -> tuple[Samples, Iterator[EchoReport | VoiceWindow]]:
        """More sound: what of it is kept, and what the turn machine is to be told of it."""
        report = None
        if self.echo is not None:
            samples = self.echo.cleaned(samples)
            report = self._changed(self.echo)
        self.recording.add(samples, arrived_s)
        return samples, self._judged(samples, report)

    def close(self) -> None:
        """Nothing more is heard, and what was is given back: 2 MB need not wait until nobody knows the conversation."""
        self.echo = None
        self.recording.clear()

    def _judged(self, samples: Samples, report: EchoReport | None) -> Iterator[EchoReport | VoiceWindow]:
        if report is not None:
            yield report
        yield from self._listener.hear(samples)

    def _changed(self, echo: EchoCanceller) -> EchoReport | None:
        reduction_db = echo.reduction_db
        failing = echo.found and reduction_db is not None and reduction_db < ECHO_FAILS_DB
        report = EchoReport(not echo.bypassed, failing)
        if report == self._report:
            return None
        self._report = report
        return report
