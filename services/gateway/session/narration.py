"""What a session tells, in the words of `Converse`. Pure but for the wall clock of events."""

from __future__ import annotations

import time
from collections.abc import Mapping

from voicemesh.gateway.v1 import gateway_pb2
from voicemesh.stream.v1 import stream_pb2

from common.stage import duration, timestamp
from common.status import status_of
from common.telemetry import Milestone
from services.gateway.session import ports

Response = gateway_pb2.ConverseResponse


class Narrator:
    """One stream's. Transcripts go out as what is new in them."""

    def __init__(self) -> None:
        self._told: dict[tuple[int, bool], str] = {}  # of the latest turn, by side
        self._turn = 0

    def response(self, event: ports.SessionEvent, sample_count: int = 0) -> Response | None:
        """The message for an event, without marks; None when there is nothing new in it. `sample_count` is what was
        sent of the answer that ended."""
        if isinstance(event, ports.Transcript):
            return self._transcript(event)
        if isinstance(event, ports.AnswerEnded):
            return _ended(event, sample_count)
        if isinstance(event, ports.ToolCalled):
            return Response(tool_call=event.call)
        turn = getattr(event, "turn", None)
        self._turn = self._turn if turn is None else turn
        told = gateway_pb2.TurnEvent(type=_name(event), turn=self._turn, time=timestamp(time.time()))
        match event:
            case ports.StateChanged():
                told.state = event.state.value
            case ports.SpeechCandidate():
                told.active = event.active
            case ports.TurnCommitted():
                told.active = event.typed
            case ports.PlayoutStopped():
                told.active = event.cleared
            case ports.FalseInterruption():
                told.active = event.resumed
            case ports.Failed():
                told.error.CopyFrom(status_of(event.error))
            case ports.TurnMeasured():
                told.milestones.extend(since(event.milestones))
        return Response(event=told)

    def _transcript(self, event: ports.Transcript) -> Response | None:
        key = (event.turn, event.user)
        before = self._told.get(key, "")
        self._told = {known: text for known, text in self._told.items() if known[0] >= event.turn - 1}
        self._told[key] = event.text
        replaces = not event.text.startswith(before)
        text = event.text if event.final or replaces else event.text[len(before) :]
        if not text and not event.final and not event.heard_character_count:
            return None
        delta = gateway_pb2.TranscriptDelta(
            user=event.user,
            text=text,
            final=event.final,
            heard_character_count=event.heard_character_count,
            turn=event.turn,
            replaces=replaces,
        )
        return Response(transcript=delta)


_NAMES: Mapping[type, str] = {
    ports.StateChanged: "state",
    ports.SpeechCandidate: "speech_candidate",
    ports.UserSpeechStarted: "user_speech_started",
    ports.UserSpeechStopped: "user_speech_stopped",
    ports.TurnCommitted: "turn_committed",
    ports.AnswerStarted: "answer_started",
    ports.PlayoutStarted: "playout_started",
    ports.PlayoutStopped: "playout_stopped",
    ports.FalseInterruption: "false_interruption",
    ports.Backchannel: "backchannel",
    ports.TurnMeasured: "turn_measured",
    ports.Failed: "failed",
    ports.UserAway: "user_away",
}


def _name(event: ports.SessionEvent) -> str:
    return _NAMES[type(event)]


def _ended(event: ports.AnswerEnded, sample_count: int) -> Response:
    ended = stream_pb2.Ended(reason=event.reason.value, sample_count=sample_count)  # type: ignore[arg-type]
    if event.error is not None:
        ended.error.CopyFrom(status_of(event.error))
    return Response(ended=ended)


def since(milestones: Mapping[Milestone, float]) -> list[gateway_pb2.Milestone]:
    """Milestones that count from the end of the person's speech."""
    return [
        gateway_pb2.Milestone(name=milestone.value, since_user_speech_end=duration(seconds))
        for milestone, seconds in milestones.items()
    ]
