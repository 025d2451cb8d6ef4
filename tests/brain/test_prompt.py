"""History as it was heard, and what models are shown of it."""

from __future__ import annotations

import numpy as np

from services.brain.prompt import (
    INTERRUPTED,
    ChatMessage,
    Conversation,
    as_heard,
    for_openai,
    for_template,
    opening,
    recent,
    shorter,
    transcription,
    with_calls,
    with_turn,
)
from services.brain.types import AudioFormat, Message, Role, Tool, ToolCall, TurnRequest

PCM = AudioFormat()
CALL = ToolCall("c1", "clock", {"zone": "UTC"})


def user(text: str) -> ChatMessage:
    return ChatMessage(Role.USER, text)


def test_an_interrupted_answer_is_shown_as_far_as_it_was_heard_and_marked() -> None:
    history = (Message(Role.USER, "a story"), Message(Role.ASSISTANT, "Once upon", interrupted=True))
    assert [message.text for message in as_heard(history, PCM)] == ["a story", "Once upon" + INTERRUPTED]


def test_an_answer_of_which_nothing_was_heard_never_happened() -> None:
    history = (Message(Role.USER, "a"), Message(Role.ASSISTANT, " ", interrupted=True), Message(Role.USER, "b"))
    assert as_heard(history, PCM) == (user("a"), user("b"))


def test_calls_without_results_and_results_without_calls_are_left_out() -> None:
    cut = ToolCall("c2", "lamp", {})
    history = (
        Message(Role.ASSISTANT, tool_calls=(CALL, cut), interrupted=True),
        Message(Role.TOOL, "noon", tool_call_id="c1"),
        Message(Role.TOOL, "lost", tool_call_id="c9"),
        Message(Role.ASSISTANT, tool_calls=(cut,), interrupted=True),
    )
    asked, told = as_heard(history, PCM)
    assert asked.tool_calls == (CALL,)
    assert (told.text, told.tool_call_id) == ("noon", "c1")


def test_long_histories_begin_with_a_persons_turn_and_move_in_blocks() -> None:
    messages = tuple(ChatMessage((Role.USER, Role.ASSISTANT)[i % 2], str(i)) for i in range(100))
    starts = [int(recent(messages[:length], 40)[0].text) for length in range(41, 101)]
    assert all(start % 2 == 0 for start in starts)
    assert len(set(starts)) <= 5, "the beginning moved with every turn: no prefix would stay in the cache"
    assert all(len(recent(messages[:length], 40)) <= 40 for length in range(1, 101))


def test_shortening_keeps_instructions_and_the_last_turn() -> None:
    conversation: Conversation | None = Conversation(
        (ChatMessage(Role.SYSTEM, "be kind"), *(user(str(i)) for i in range(50)))
    )
    seen = []
    while conversation is not None:
        seen.append(conversation)
        conversation = shorter(conversation)
    assert [message.text for message in seen[-1].messages] == ["be kind", "49"]
    assert {conversation.messages[0].text for conversation in seen} == {"be kind"}


def test_a_turn_of_blanks_adds_nothing() -> None:
    empty = opening(TurnRequest())
    assert with_turn(empty, "  ", None) == empty
    assert not empty.awaits_answer
    assert with_turn(empty, "", np.zeros(10, np.float32)).awaits_answer


def test_an_answer_goes_on_after_its_calls_with_what_it_said_before_them() -> None:
    begun = Conversation((user("what time is it"),), (Tool("clock"),), partial_answer="Let me")
    going = with_calls(begun, " see.", [CALL], ["noon"])
    assert going.partial_answer == ""
    assert [message.text for message in going.messages] == ["what time is it", "Let me see.", "noon"]
    assert going.awaits_answer


def test_a_transcript_is_asked_of_the_recording_alone() -> None:
    samples = np.ones(16, np.float32)
    asked = transcription(with_turn(Conversation((user("before"),), (Tool("clock"),)), "typed too", samples))
    assert len(asked.messages) == 1
    assert asked.messages[0].samples is samples
    assert not asked.tools


def test_templates_get_audio_as_parts_before_the_text() -> None:
    samples = np.ones(16, np.float32)
    messages, recordings = for_template(with_turn(opening(TurnRequest("be kind")), "and this", samples))
    assert messages[1]["content"] == [{"type": "audio", "audio": "recording"}, {"type": "text", "text": "and this"}]
    assert recordings == [samples]


def test_openai_gets_arguments_as_text() -> None:
    shown = for_openai(with_calls(Conversation((user("x"),)), "", [CALL], ["noon"]), lambda value: f"<{value['zone']}>")
    assert shown[1]["tool_calls"][0]["function"] == {"name": "clock", "arguments": "<UTC>"}
    assert shown[2] == {"role": "tool", "content": "noon", "tool_call_id": "c1"}
