"""What a model is shown: instructions, history as it was heard, and the person's turn. Pure: values in, values out.

History holds what was *heard*. The caller cuts the text of an interrupted answer; here it is marked, so that the model
knows why its sentence stops. An interrupted answer of which nothing was heard never happened. Calls of tools without a
result (the answer was cut before it came) and results without a call are left out: templates and servers refuse them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from services.brain.audio import wav_base64, whole
from services.brain.types import AudioFormat, Message, Role, Tool, ToolCall, TurnRequest

INTERRUPTED = " [interrupted by the user]"
"""What follows the heard part of an answer that was cut short."""

TRANSCRIBE = "Write down exactly what is said in the recording, in its own language, and nothing else."
"""The request behind a transcript."""

CUT_MESSAGES = 16
"""History that is too long loses its oldest messages in blocks of this many: most turns keep the cached prefix."""


@dataclass(frozen=True)
class ChatMessage:
    """One message as a model sees it: `samples` [N] float32 at 16 kHz stand before `text`."""

    role: Role
    text: str = ""
    samples: NDArray[np.float32] | None = field(default=None, compare=False)
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str = ""


@dataclass(frozen=True)
class Conversation:
    """Everything a model is shown. With `partial_answer`, its answer goes on right after that text."""

    messages: tuple[ChatMessage, ...]
    tools: tuple[Tool, ...] = ()
    partial_answer: str = ""

    @property
    def awaits_answer(self) -> bool:
        """Whether somebody spoke last who is to be answered."""
        return bool(self.messages) and self.messages[-1].role in (Role.USER, Role.TOOL)


def opening(request: TurnRequest, instructions: str = "", max_messages: int = 1024) -> Conversation:
    """Instructions and history of a turn, before the person has said anything in it."""
    told = request.instructions or instructions
    head = (ChatMessage(Role.SYSTEM, told),) if told else ()
    history = recent(as_heard(request.history, request.audio_format), max_messages)
    return Conversation(head + history, request.tools, request.partial_answer)


def as_heard(history: Sequence[Message], audio: AudioFormat) -> tuple[ChatMessage, ...]:
    """The history with interrupted answers marked and half-finished tool calls removed."""
    answered = {message.tool_call_id for message in history if message.role is Role.TOOL}
    made = {call.id for message in history for call in message.tool_calls}
    return tuple(
        message
        for said in history
        if not (said.role is Role.TOOL and said.tool_call_id not in made)
        for message in _one(said, answered, audio)
    )


def _one(said: Message, answered: set[str], audio: AudioFormat) -> Iterable[ChatMessage]:
    calls = tuple(call for call in said.tool_calls if call.id in answered)
    text = said.text + INTERRUPTED if said.interrupted and said.text.strip() else said.text
    samples = whole(audio, said.audio) if said.audio else None
    if said.role is Role.ASSISTANT and not text.strip() and not calls:
        return
    yield ChatMessage(said.role, text, samples, calls, said.tool_call_id)


def recent(messages: tuple[ChatMessage, ...], limit: int) -> tuple[ChatMessage, ...]:
    """At most `limit` messages, if they can be had without the last turn: the oldest go first, block by block."""
    while len(messages) > limit and (cut := _cut(messages)):
        messages = messages[cut:]
    return messages


def shorter(conversation: Conversation) -> Conversation | None:
    """The same without its oldest block of history; `None` when only instructions and the last turn are left."""
    head = tuple(message for message in conversation.messages[:1] if message.role is Role.SYSTEM)
    rest = conversation.messages[len(head) :]
    cut = _cut(rest)
    return replace(conversation, messages=head + rest[cut:]) if cut else None


def _cut(messages: tuple[ChatMessage, ...]) -> int:
    """Where the history may begin instead: at a person's turn, a block further; 0 when the last turn would go too."""
    turns = [index for index, message in enumerate(messages) if message.role is Role.USER]
    return next((index for index in turns if index >= CUT_MESSAGES), turns[-1] if turns else 0)


def with_turn(conversation: Conversation, text: str, samples: NDArray[np.float32] | None) -> Conversation:
    """The person's turn appended; a turn without words and samples appends nothing."""
    if not text.strip() and (samples is None or not samples.size):
        return conversation
    return _with(conversation, ChatMessage(Role.USER, text, samples if samples is not None and samples.size else None))


def with_calls(
    conversation: Conversation, said: str, calls: Sequence[ToolCall], results: Sequence[str]
) -> Conversation:
    """What was said so far, its calls and their results appended: the next answer goes on from there."""
    asked = ChatMessage(Role.ASSISTANT, conversation.partial_answer + said, tool_calls=tuple(calls))
    told = [ChatMessage(Role.TOOL, text, tool_call_id=call.id) for call, text in zip(calls, results, strict=True)]
    return _with(replace(conversation, partial_answer=""), asked, *told)


def transcription(conversation: Conversation) -> Conversation:
    """The request for a transcript of the person's last turn."""
    return Conversation((ChatMessage(Role.USER, TRANSCRIBE, conversation.messages[-1].samples),))


def _with(conversation: Conversation, *messages: ChatMessage) -> Conversation:
    return replace(conversation, messages=conversation.messages + messages)


def for_template(conversation: Conversation) -> tuple[list[dict[str, Any]], list[NDArray[np.float32]]]:
    """Messages for a Hugging Face chat template, and the recordings that its audio places stand for, in order."""
    recordings = [message.samples for message in conversation.messages if message.samples is not None]
    return [_templated(message) for message in conversation.messages], recordings


def _templated(message: ChatMessage) -> dict[str, Any]:
    content: Any = message.text
    if message.samples is not None:
        text = [{"type": "text", "text": message.text}] if message.text else []
        content = [{"type": "audio", "audio": "recording"}, *text]
    calls = [
        {"type": "function", "function": {"name": c.name, "arguments": dict(c.arguments)}} for c in message.tool_calls
    ]
    return {"role": message.role.value, "content": content, **({"tool_calls": calls} if calls else {})}


def template_tools(tools: Sequence[Tool]) -> list[dict[str, Any]]:
    """Tools as OpenAI's API and chat templates want them."""
    return [
        {"type": "function", "function": {"name": t.name, "description": t.description, "parameters": _schema(t)}}
        for t in tools
    ]


def _schema(tool: Tool) -> dict[str, Any]:
    return dict(tool.parameters) or {"type": "object", "properties": {}}


def for_openai(conversation: Conversation, encode_arguments: Any) -> list[dict[str, Any]]:
    """Messages of OpenAI's chat completions; `encode_arguments` writes a call's arguments as JSON text."""
    return [_openai(message, encode_arguments) for message in conversation.messages]


def _openai(message: ChatMessage, encode_arguments: Any) -> dict[str, Any]:
    content: Any = message.text
    if message.samples is not None:
        audio = {"type": "input_audio", "input_audio": {"data": wav_base64(message.samples), "format": "wav"}}
        content = [audio, *([{"type": "text", "text": message.text}] if message.text else [])]
    out: dict[str, Any] = {"role": message.role.value, "content": content}
    if message.tool_calls:
        out["tool_calls"] = [
            {"id": c.id, "type": "function", "function": {"name": c.name, "arguments": encode_arguments(c.arguments)}}
            for c in message.tool_calls
        ]
    return out | ({"tool_call_id": message.tool_call_id} if message.role is Role.TOOL else {})
