"""What a client's messages do, and what is answered to those that cannot be done."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.types.realtime import RealtimeServerEvent
from pydantic import TypeAdapter
from voicemesh.brain.v1 import brain_pb2

from common.errors import InvalidRequest, Overloaded
from common.stream import FinishReason
from services.gateway.realtime.commands import MAX_DEPTH, MAX_MESSAGE_BYTES
from services.gateway.realtime.link import Link
from services.gateway.realtime.settings import Offer
from services.gateway.session.ports import AnswerEnded, AnswerStarted, Block, SessionSettings, ToolCalled, UserAway
from tests.gateway.realtime.house import NotedConversation, Wire

OFFICIAL: TypeAdapter[Any] = TypeAdapter(RealtimeServerEvent)
OFFER = Offer("mini", ("Ada", "Ben"), {"alloy": "Ada"}, ("English", "Chinese"))


class Ear:
    """As much of a transport as a noted conversation needs."""

    kind, ready, client_buffer_s = "webrtc", True, 0.08

    def __init__(self, link: Link) -> None:
        self.tell = link.tell

    def play(self, block: Block) -> None: ...
    async def close(self, reason: str) -> None: ...


class Client:
    """A client on a `Link` to a conversation that notes."""

    def __init__(self, *, over_webrtc: bool = True) -> None:
        self.wire, self.pcm = Wire(), bytearray()
        hear = None if over_webrtc else self.pcm.extend
        self.link = Link(self.wire.send, OFFER, SessionSettings(), lambda: 100.0, hear=hear)
        self.conversation = NotedConversation(Ear(self.link), SessionSettings())
        self.link.opened(self.conversation)
        self.opening = self.wire.take()

    def say(self, kind: str, **fields: Any) -> list[dict[str, Any]]:
        self.link.receive(json.dumps({"type": kind, **fields}))
        return self.wire.take()

    def refused(self, kind: str, **fields: Any) -> dict[str, Any]:
        (answer,) = self.say(kind, **fields)
        OFFICIAL.validate_python(answer)
        assert answer["type"] == "error"
        error: dict[str, Any] = answer["error"]
        return error

    def update(self, **session: Any) -> Any:
        return self.say("session.update", session={"type": "realtime", **session})


LOOK_UP = {
    "type": "function",
    "name": "look_up",
    "description": "a word",
    "parameters": {"type": "object", "properties": {"word": {"type": "string", "maxLength": 9}}},
}


def wanted(call_id: str, **arguments: Any) -> brain_pb2.ToolCall:
    call = brain_pb2.ToolCall(id=call_id, name="look_up")
    call.arguments.update(arguments)
    return call


def test_functions_are_offered_as_they_were_given() -> None:
    client = Client()
    (updated,) = client.update(tools=[LOOK_UP])
    OFFICIAL.validate_python(updated)
    assert updated["session"]["tools"] == [LOOK_UP]
    assert updated["session"]["tool_choice"] == "auto"
    assert [tool.name for tool in client.conversation.settings.tools] == ["look_up"]
    (updated,) = client.update(tool_choice="none")
    assert updated["session"]["tools"] == []


def test_a_function_is_called_answered_and_the_same_response_goes_on() -> None:
    client = Client()
    client.update(tools=[LOOK_UP])
    client.conversation.tell(AnswerStarted(1, 1), ToolCalled(1, 1, wanted("call_7", word="fox", depth=2)))
    told = client.wire.take()
    for event in told:
        OFFICIAL.validate_python(event)
    done = next(event for event in told if event["type"] == "response.function_call_arguments.done")
    assert (done["call_id"], json.loads(done["arguments"])) == ("call_7", {"word": "fox", "depth": 2})
    item = next(event["item"] for event in told if event["type"] == "response.output_item.done")
    assert (item["type"], item["status"], item["name"]) == ("function_call", "completed", "look_up")
    output = {"type": "function_call_output", "call_id": "call_7", "output": "a small animal"}
    added = client.say("conversation.item.create", item=output)
    assert [event["type"] for event in added] == ["conversation.item.added", "conversation.item.done"]
    assert client.say("response.create") == []  # as OpenAI's clients do
    assert client.conversation.asked[-1] == ("tool_result", "call_7", "a small animal", False)
    client.conversation.tell(AnswerEnded(1, 1, FinishReason.COMPLETED, 24000, "A fox."))
    response = client.wire.take()[-1]["response"]
    assert [item["type"] for item in response["output"]] == ["message", "function_call"]


def test_an_output_that_nobody_waits_for_is_refused() -> None:
    client = Client()
    client.conversation.raising = InvalidRequest("No call of that id waits for an answer.")
    output = {"type": "function_call_output", "call_id": "x", "output": ""}
    assert client.refused("conversation.item.create", item=output)["message"].startswith("No call")
    assert client.refused("response.create")["code"] == "nothing_to_answer"


def typed(text: str, **item: Any) -> dict[str, Any]:
    return {"type": "message", "role": "user", "content": [{"type": "input_text", "text": text}], **item}


def test_a_session_begins_with_what_it_is() -> None:
    (created,) = Client().opening
    OFFICIAL.validate_python(created)
    assert created["type"] == "session.created"
    assert created["session"]["voicemesh"]["resume_token"] == "token of session"
    assert created["session"]["audio"]["input"]["turn_detection"]["type"] == "semantic_vad"


def test_what_is_told_before_the_session_is_open_comes_after_its_beginning() -> None:
    wire = Wire()
    link = Link(wire.send, OFFER, SessionSettings(), lambda: 0.0)
    link.tell(UserAway())
    assert wire.events == []
    link.opened(NotedConversation(Ear(link), SessionSettings()))
    assert wire.types() == ["session.created", "voice.user_away"]


def test_a_typed_message_is_answered_when_an_answer_is_asked_for() -> None:
    client = Client()
    added = client.say("conversation.item.create", item=typed("What is the time?", id="mine"))
    assert [message["type"] for message in added] == ["conversation.item.added", "conversation.item.done"]
    assert added[0]["item"]["id"] == "mine"
    assert client.conversation.asked == []
    client.say("response.create")
    assert client.conversation.asked == [("type", "What is the time?")]
    assert client.refused("response.create")["code"] == "nothing_to_answer"


def test_both_ways_to_ask_for_silence_interrupt() -> None:
    client = Client()
    client.link.tell(AnswerStarted(1, 1))
    client.say("response.cancel")
    client.say("output_audio_buffer.clear")
    assert client.conversation.asked == [("interrupt",), ("interrupt",)]
    client.wire.take()
    client.link.tell(AnswerEnded(1, 1, FinishReason.CANCELLED, 0, ""))
    assert client.wire.of("response.done")[0]["response"]["status_details"]["reason"] == "client_cancelled"


def test_sound_in_events_reaches_the_ear_and_a_call_has_its_track() -> None:
    client = Client(over_webrtc=False)
    assert client.say("input_audio_buffer.append", audio=base64.b64encode(b"\1\2\3\4").decode()) == []
    assert bytes(client.pcm) == b"\1\2\3\4"
    assert Client().refused("input_audio_buffer.append", audio="AAA=")["code"] == "unsupported_event"


def test_a_commit_by_hand_needs_no_second_asking() -> None:
    client = Client()
    client.say("input_audio_buffer.commit")
    assert client.say("response.create") == []
    assert client.conversation.asked == [("commit", 0)]


def test_what_the_client_heard_and_measured_is_passed_on() -> None:
    client = Client()
    client.say("voice.heard", generation_id=7, age_ms=250)
    client.say("voice.client_stats", jb_ms=40, playout_ms=30, concealed=3, note="text", odd=float("nan"))
    assert client.conversation.asked == [("report_first_audible", 7, 99.75), ("report_playback", None, 0.07)]
    assert client.link.client_stats == {"jb_ms": 40.0, "playout_ms": 30.0, "concealed": 3.0}


def test_a_truncation_reports_what_was_heard_of_the_current_answer() -> None:
    client = Client()
    client.link.tell(AnswerStarted(1, 0))
    client.wire.take()
    truncate = {"item_id": "item_answer_0", "content_index": 0, "audio_end_ms": 1500}
    for _ in range(2):
        (answer,) = client.say("conversation.item.truncate", **truncate)
        assert answer["type"] == "conversation.item.truncated"
    assert client.conversation.asked[0] == ("report_playback", 36000, None)
    assert client.refused("conversation.item.truncate", item_id="other", audio_end_ms=1)["code"] == "item_not_found"


def test_a_fault_of_the_conversation_is_told_with_the_clients_own_id() -> None:
    client = Client()
    client.conversation.raising = Overloaded("No slot is free.", retry_after_s=2.0)
    error = client.refused("voice.say", text="hello", event_id="mine")
    assert (error["code"], error["event_id"], error["type"]) == ("no_slot", "mine", "server_error")
    client.conversation.raising = InvalidRequest("That is too long.")
    assert client.refused("voice.say", text="hello")["type"] == "invalid_request_error"


def test_an_update_changes_what_it_names_and_nothing_else() -> None:
    client = Client()
    turn_detection = {"type": "server_vad", "silence_duration_ms": 700, "threshold": 0.6, "unheard_of": 1}
    (answer,) = client.update(
        instructions="Be brief.",
        audio={"input": {"turn_detection": turn_detection}, "output": {"voice": "ben"}},
        voicemesh={"language": "english"},
        something_new={"deep": []},
    )
    OFFICIAL.validate_python(answer)
    settings = client.conversation.settings
    assert (settings.instructions, settings.voice, settings.language) == ("Be brief.", "Ben", "English")
    assert (settings.turn_detection.mode, settings.turn_detection.silence_s) == ("server_vad", 0.7)
    client.update(audio={"output": {"voice": {"id": "Alloy"}}})
    settings = client.conversation.settings
    assert (settings.instructions, settings.voice, settings.turn_detection.threshold) == ("Be brief.", "Ada", 0.6)
    client.update(audio={"input": {"turn_detection": None, "transcription": None}})
    settings = client.conversation.settings
    assert (settings.turn_detection.mode, settings.want_transcript) == ("none", False)


@pytest.mark.parametrize(
    ("session", "param"),
    [
        ({"tools": [{"type": "function"}]}, "session.tools.name"),
        ({"tools": [{"type": "mcp", "name": "x"}]}, "session.tools"),
        ({"tools": [{"name": "x"}, {"name": "x"}]}, "session.tools"),
        ({"tools": [{"name": "x", "parameters": [1]}]}, "session.tools.parameters"),
        ({"tool_choice": "required"}, "session.tool_choice"),
        ({"output_modalities": ["text"]}, "session.output_modalities"),
        ({"type": "transcription"}, "session.type"),
        ({"audio": {"input": {"format": {"type": "audio/pcmu"}}}}, "session.audio.input.format"),
        ({"audio": {"output": {"speed": 1.5}}}, "session.audio.output.speed"),
        ({"audio": {"output": {"voice": "nobody"}}}, "session.audio.output.voice"),
        ({"voicemesh": {"language": "Klingon"}}, "session.voicemesh.language"),
        ({"turn_detection": {"type": "magic"}}, "session.audio.input.turn_detection.type"),
        ({"turn_detection": {"threshold": 2}}, "session.audio.input.turn_detection.threshold"),
        ({"max_output_tokens": 0}, "session.max_output_tokens"),
        ({"audio": []}, "session.audio"),
        ({"instructions": 5}, "session.instructions"),
    ],
)
def test_an_update_that_cannot_be_is_refused_whole_and_names_the_field(session: Any, param: str) -> None:
    client = Client()
    error = client.refused("session.update", session={"instructions": "changed", **session})
    assert error["param"] == param
    assert client.conversation.settings == SessionSettings()


@pytest.mark.parametrize(
    "message",
    [
        "",
        "not json",
        "[]",
        "null",
        '{"type": 5}',
        '{"type": "no.such.event"}',
        '{"type": "conversation.item.delete", "item_id": "x"}',
        '{"type": "input_audio_buffer.append", "audio": "***"}',
        '{"type": "input_audio_buffer.append", "audio": "AAAA"}',
        '{"type": "conversation.item.create", "item": {"type": "function_call_output"}}',
        '{"type": "conversation.item.create", "item": {"type": "message", "role": "system", "content": []}}',
        '{"type": "conversation.item.create", "item": {"type": "message", "role": "user", "content": [5]}}',
        '{"type": "voice.say", "text": "\\ud800"}',
        '{"type": "voice.heard", "generation_id": 1e400}',
        '{"type": "voice.heard", "generation_id": true}',
        '{"type": "voice.say", "text": "x", "deep": ' + "[" * MAX_DEPTH + "]" * MAX_DEPTH + "}",
        "[" * 100_000,
        '{"type": "voice.say", "text": "' + "x" * MAX_MESSAGE_BYTES + '"}',
    ],
)
def test_hostile_messages_are_refused_and_the_session_goes_on(message: str) -> None:
    client = Client(over_webrtc=False)
    client.link.receive(message)
    (answer,) = client.wire.take()
    OFFICIAL.validate_python(answer)
    assert answer["type"] == "error"
    assert client.conversation.asked == []
    client.say("input_audio_buffer.clear")
    assert client.conversation.asked == [("clear",)]


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
KINDS = st.sampled_from(
    [
        "session.update",
        "input_audio_buffer.append",
        "conversation.item.create",
        "conversation.item.truncate",
        "response.create",
        "voice.heard",
        "voice.client_stats",
        "voice.say",
        "voice.ping",
    ]
)
FIELDS = st.sampled_from(
    ["session", "audio", "item", "item_id", "audio_end_ms", "response", "generation_id", "jb_ms", "text", "client_ms"]
)


@given(KINDS, st.dictionaries(FIELDS, JSON, max_size=4))
def test_no_message_breaks_the_session(kind: str, fields: dict[str, Any]) -> None:
    client = Client(over_webrtc=False)
    for answer in client.say(kind, **fields):
        if not answer["type"].startswith("voice."):
            OFFICIAL.validate_python(answer)
