"""Everything a client is told: it validates as OpenAI's own types, in OpenAI's order, each answer ending once."""

from __future__ import annotations

from typing import Any

import pytest
from openai.types.realtime import RealtimeServerEvent
from pydantic import TypeAdapter

from common.errors import Broken, Overloaded
from common.stream import FinishReason
from common.telemetry import Milestone
from services.gateway.realtime.events import Narrator
from services.gateway.realtime.stages import STAGES, stages_s
from services.gateway.session.ports import (
    AnswerEnded,
    AnswerStarted,
    Backchannel,
    Failed,
    FalseInterruption,
    PlayoutStarted,
    PlayoutStopped,
    SessionEvent,
    SpeechCandidate,
    State,
    StateChanged,
    Transcript,
    TurnCommitted,
    TurnMeasured,
    UserAway,
    UserSpeechStarted,
    UserSpeechStopped,
)

OFFICIAL: TypeAdapter[Any] = TypeAdapter(RealtimeServerEvent)
ASKED = (
    SpeechCandidate(True),
    UserSpeechStarted(1, 0.5),
    UserSpeechStopped(1, 1.75),
    TurnCommitted(1, typed=False),
    Transcript(1, True, "what is", False),
    Transcript(1, True, "what is twelve times seven", True),
)
ANSWERED = (
    AnswerStarted(1, 3),
    Transcript(1, False, "That is ", False),
    PlayoutStarted(3),
    Transcript(1, False, "That is eighty-four.", False, 8),
    Transcript(1, False, "That is eighty-four.", True, 20),
    PlayoutStopped(3, cleared=False),
    AnswerEnded(1, 3, FinishReason.COMPLETED, 24000, "That is eighty-four."),
)


def told(*events: SessionEvent, over_webrtc: bool = True) -> list[dict[str, Any]]:
    narrator = Narrator(over_webrtc=over_webrtc)
    return [message for event in events for message in narrator.tell(event)]


def types(messages: list[dict[str, Any]], *, ours: bool = False) -> list[str]:
    return [message["type"] for message in messages if ours or not message["type"].startswith("voice.")]


def one(messages: list[dict[str, Any]], kind: str) -> dict[str, Any]:
    (found,) = [message for message in messages if message["type"] == kind]
    return found


def check_official(messages: list[dict[str, Any]]) -> None:
    for message in messages:
        assert message["event_id"]
        if not message["type"].startswith("voice."):
            parsed = OFFICIAL.validate_python(message, strict=False)
            assert parsed.type == message["type"]


EVERYTHING: dict[str, tuple[SessionEvent, ...]] = {
    "a turn and its answer": ASKED + ANSWERED,
    "a false interruption": (*ANSWERED[:3], FalseInterruption(True), Backchannel(), *ANSWERED[3:]),
    "cut short": (*ANSWERED[:4], PlayoutStopped(3, True), AnswerEnded(1, 3, FinishReason.CANCELLED, 12000, "That is")),
    "cut before a sound": (ANSWERED[0], AnswerEnded(1, 3, FinishReason.CANCELLED, 0, "")),
    "too long": (*ANSWERED[:4], AnswerEnded(1, 3, FinishReason.LENGTH, 24000, "That is eighty-four.")),
    "runaway": (*ANSWERED[:4], AnswerEnded(1, 3, FinishReason.RUNAWAY, 24000, "That is eighty-four.")),
    "failed": (ANSWERED[0], AnswerEnded(1, 3, FinishReason.FAILED, 0, "", Broken("The codec broke."))),
    "faults and silence": (Failed(Overloaded("All slots are taken.")), UserAway()),
}


@pytest.mark.parametrize("case", EVERYTHING)
@pytest.mark.parametrize("over_webrtc", [True, False])
def test_every_event_is_one_that_the_official_client_reads(case: str, over_webrtc: bool) -> None:
    messages = told(*EVERYTHING[case], over_webrtc=over_webrtc)
    check_official(messages)
    assert len({message["event_id"] for message in messages}) == len(messages)
    assert types(messages).count("response.created") == types(messages).count("response.done")


def test_the_events_of_sound_are_ones_that_the_official_client_reads() -> None:
    narrator = Narrator(over_webrtc=False)
    narrator.tell(ANSWERED[0])
    messages = narrator.sound(3, b"\x01\x02" * 480)
    check_official(messages)
    assert types(messages) == ["response.output_audio.delta"]


def test_a_turn_is_told_in_openais_order() -> None:
    assert types(told(*ASKED, *ANSWERED)) == [
        "input_audio_buffer.speech_started",
        "input_audio_buffer.speech_stopped",
        "input_audio_buffer.committed",
        "conversation.item.added",
        "conversation.item.done",
        "conversation.item.input_audio_transcription.delta",
        "conversation.item.input_audio_transcription.delta",
        "conversation.item.input_audio_transcription.completed",
        "response.created",
        "response.output_item.added",
        "conversation.item.added",
        "response.content_part.added",
        "response.output_audio_transcript.delta",
        "output_audio_buffer.started",
        "response.output_audio_transcript.delta",
        "output_audio_buffer.stopped",
        "response.output_audio.done",
        "response.output_audio_transcript.done",
        "response.content_part.done",
        "response.output_item.done",
        "conversation.item.done",
        "response.done",
    ]


def test_deltas_join_to_the_transcript() -> None:
    messages = told(*ASKED, *ANSWERED)
    kind = "response.output_audio_transcript"
    deltas = "".join(message["delta"] for message in messages if message["type"] == f"{kind}.delta")
    assert deltas == one(messages, f"{kind}.done")["transcript"] == "That is eighty-four."
    assert one(messages, "response.done")["response"]["output"][0]["content"][0]["transcript"] == deltas


def test_a_typed_turn_is_not_told_to_whom_typed_it() -> None:
    assert told(TurnCommitted(1, typed=True), Transcript(1, True, "hello", True)) == []


def test_a_transcript_that_changes_its_mind_is_told_whole() -> None:
    messages = told(Transcript(1, True, "wreck a nice", False), Transcript(1, True, "recognise", True))
    assert one(messages, "voice.transcript")["text"] == "recognise"
    assert one(messages, "conversation.item.input_audio_transcription.completed")["transcript"] == "recognise"


@pytest.mark.parametrize(
    ("reason", "status", "why"),
    [
        (FinishReason.COMPLETED, "completed", None),
        (FinishReason.CANCELLED, "cancelled", "turn_detected"),
        (FinishReason.LENGTH, "incomplete", "max_output_tokens"),
        (FinishReason.TEXT_TIMEOUT, "incomplete", None),
        (FinishReason.FAILED, "failed", None),
    ],
)
def test_an_answer_says_how_it_ended(reason: FinishReason, status: str, why: str | None) -> None:
    response = one(told(ANSWERED[0], AnswerEnded(1, 3, reason, 24000, "That")), "response.done")["response"]
    assert response["status"] == response["status_details"]["type"] == status
    assert response["status_details"].get("reason") == why


def test_a_client_that_asked_for_silence_is_named_as_the_reason() -> None:
    narrator = Narrator(over_webrtc=True)
    narrator.tell(ANSWERED[0])
    narrator.client_asked_for_silence = True
    messages = narrator.tell(AnswerEnded(1, 3, FinishReason.CANCELLED, 0, ""))
    assert one(messages, "response.done")["response"]["status_details"]["reason"] == "client_cancelled"


def test_a_cut_answer_says_how_much_of_it_was_heard() -> None:
    messages = told(*EVERYTHING["cut short"])
    assert one(messages, "conversation.item.truncated")["audio_end_ms"] == 500
    assert one(messages, "output_audio_buffer.cleared")["response_id"] == "resp_3"


def test_sound_of_an_answer_that_is_over_is_not_told() -> None:
    narrator = Narrator(over_webrtc=False)
    for event in EVERYTHING["cut short"]:
        narrator.tell(event)
    assert narrator.sound(3, b"\0\0") == []
    assert narrator.sound(2, b"\0\0") == []


def test_states_are_told_with_turn_and_generation() -> None:
    (message,) = told(StateChanged(State.THINKING, 4, 9))
    assert (message["state"], message["turn_id"], message["generation_id"]) == ("thinking", 4, 9)


def test_stages_add_up_to_the_last_milestone() -> None:
    times = (0.3, 0.32, 0.35, 0.4, 0.42, 0.43, 0.44, 0.5)
    milestones = {Milestone.USER_SPEECH_END: 0.0, **dict(zip(STAGES, times, strict=True))}
    found = stages_s(milestones)
    assert list(found) == list(STAGES.values())
    assert sum(found.values()) == pytest.approx(0.5)
    ahead = stages_s({**milestones, Milestone.BRAIN_FIRST_TOKEN: 0.1})  # it had thought ahead
    assert ahead["brain"] == 0
    assert sum(ahead.values()) == pytest.approx(0.5)


def test_metrics_name_the_stages_in_milliseconds() -> None:
    milestones = {Milestone.USER_SPEECH_END: 0.0, Milestone.ENDPOINT: 0.25, Milestone.PLAYOUT_FIRST: 0.4}
    (message,) = told(TurnMeasured(2, milestones))
    assert message["stages_ms"] == {"endpoint": 250.0, "playout": 150.0}
    assert message["milestones_ms"]["playout_first"] == 400.0
