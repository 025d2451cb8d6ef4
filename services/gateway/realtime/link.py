"""One client that speaks the realtime events: its messages become calls of the conversation, what that tells becomes
messages. Knows no socket: `send` takes a JSON text, never blocks and is bounded by whoever gives it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, assert_never

from common.errors import MeshError
from services.gateway.realtime.commands import (
    Append,
    Clear,
    ClientStats,
    Command,
    Commit,
    CreateItem,
    Heard,
    Ping,
    Refusal,
    Respond,
    Say,
    Silence,
    ToolOutput,
    Truncate,
    Update,
    command_of,
)
from services.gateway.realtime.events import Narrator
from services.gateway.realtime.settings import Offer, session_object, updated
from services.gateway.session.ports import PLAYED_RATE_HZ, Conversation, SessionEvent, SessionSettings

MAX_TYPED = 64
MAX_EARLY = 256


class Link:
    """Make it with its transport, give it to the transport's `tell`, and call `opened` with what `Sessions.open` gave.

    `hear` takes PCM16 (24 kHz) of clients that send sound in events; None: their sound comes by a track.
    `before_commit` passes on what of it still waits. `client_stats` is what the client measured last.
    """

    def __init__(
        self,
        send: Callable[[str], None],
        offer: Offer,
        settings: SessionSettings,
        time: Callable[[], float],
        *,
        hear: Callable[[bytes], None] | None = None,
        before_commit: Callable[[], None] = lambda: None,
    ) -> None:
        self._send = send
        self._offer = offer
        self._settings = settings
        self._time = time
        self._hear = hear
        self._before_commit = before_commit
        self._narrator = Narrator(over_webrtc=hear is None)
        self._conversation: Conversation | None = None
        self._early: list[SessionEvent] = []
        self._typed: list[CreateItem] = []
        self._committed = False  # a turn was ended by hand, and its answer has not begun
        self._gave_back = False  # what a tool answered, and OpenAI's clients ask for the rest of the answer then
        self.client_stats: Mapping[str, float] = {}

    @property
    def settings(self) -> SessionSettings:
        """As the client has changed them."""
        return self._settings

    def opened(self, conversation: Conversation) -> None:
        """The conversation is there: the client is told, and then what was told meanwhile."""
        self._conversation = conversation
        self._tell("session.created", session=self._session(conversation))
        early, self._early = self._early, []
        for event in early:
            self.tell(event)

    def tell(self, event: SessionEvent) -> None:
        """As `Transport.tell`."""
        if self._conversation is None:
            if len(self._early) < MAX_EARLY:
                self._early.append(event)
            return
        for message in self._narrator.tell(event):
            self._write(message)
        if self._narrator.is_answering:
            self._committed = False

    def sound(self, epoch: int, pcm: bytes) -> None:
        """Samples of an answer, for a client that takes its sound in events."""
        for message in self._narrator.sound(epoch, pcm):
            self._write(message)

    def receive(self, message: str | bytes) -> None:
        """One message of the client. What is wrong with it is told to the client; the session goes on."""
        event_id = None
        try:
            command, event_id = command_of(message)
            self._do(command)
        except Refusal as refusal:
            refusal.event_id = refusal.event_id or event_id
            self._write(self._narrator.refused(refusal))
        except MeshError as error:
            self._write(self._narrator.failed(error, event_id))

    def _do(self, command: Command) -> None:
        conversation = self._conversation
        if conversation is None:
            raise Refusal("The session is not open yet.", "not_ready")
        match command:
            case Append():
                if self._hear is None:
                    raise Refusal("Sound of a WebRTC call comes by its audio track.", "unsupported_event", "type")
                self._hear(command.pcm)
            case Commit():
                self._before_commit()
                conversation.commit()
                self._committed = True
            case Clear():
                conversation.clear()
                self._tell("input_audio_buffer.cleared")
            case CreateItem():
                self._create(command)
            case ToolOutput():
                self._give_back(conversation, command)
            case Respond():
                self._respond(conversation)
            case Silence():
                self._narrator.client_asked_for_silence = True
                conversation.interrupt()
            case Truncate():
                self._truncate(conversation, command)
            case Update():
                self._settings = updated(self._settings, command.session, self._offer)
                conversation.update(self._settings)
                self._tell("session.updated", session=self._session(conversation))
            case Heard():
                conversation.report_first_audible(command.epoch, self._time() - command.age_s)
            case ClientStats():
                self.client_stats = command.numbers
                if command.buffer_s is not None:
                    conversation.report_playback(None, command.buffer_s)
            case Say():
                conversation.say(command.text, command.interruptible)
            case Ping():
                self._tell("voice.pong", client_ms=command.client_ms)
            case _:
                assert_never(command)

    def _create(self, item: CreateItem) -> None:
        if len(self._typed) >= MAX_TYPED:
            raise Refusal("Too many messages wait for 'response.create'.", "too_many_items")
        item_id = item.item_id or f"item_typed_{self._narrator.event('')['event_id']}"
        self._typed.append(item)
        content = [{"type": "input_text", "text": item.text}]
        for message in self._narrator.item_added(item_id, content, "user", "completed"):
            self._write(message)

    def _give_back(self, conversation: Conversation, output: ToolOutput) -> None:
        conversation.tool_result(output.call_id, output.output, False)
        self._gave_back = True
        item_id = output.item_id or f"item_output_{output.call_id}"
        for message in self._narrator.output_added(item_id, output.call_id, output.output):
            self._write(message)

    def _respond(self, conversation: Conversation) -> None:
        if self._typed:
            text = "\n".join(item.text for item in self._typed)
            self._typed.clear()
            conversation.type(text)
        elif not self._settings.turn_detection.create_response:
            conversation.commit()
        elif self._gave_back:  # that answer goes on, or has gone on, by itself
            self._gave_back = False
        elif not self._committed and not self._narrator.is_answering:
            raise Refusal("There is nothing to answer: type or say something first.", "nothing_to_answer")

    def _truncate(self, conversation: Conversation, command: Truncate) -> None:
        """The gateway itself knows what was sent; a client that knows better what was heard is believed while that
        answer is the current one."""
        epoch = self._narrator.answer_of(command.item_id)
        if epoch is None:
            raise Refusal("Only the latest answer can be truncated.", "item_not_found", "item_id")
        if epoch == conversation.epoch:
            conversation.report_playback(round(command.heard_s * PLAYED_RATE_HZ), None)
        for message in self._narrator.truncated(command.item_id, command.heard_s):
            self._write(message)

    def _session(self, conversation: Conversation) -> dict[str, Any]:
        return session_object(self._settings, conversation.session_id, conversation.resume_token, self._offer)

    def _tell(self, kind: str, **fields: Any) -> None:
        self._write(self._narrator.event(kind, **fields))

    def _write(self, message: dict[str, Any]) -> None:
        self._send(json.dumps(message, ensure_ascii=False, separators=(",", ":")))
