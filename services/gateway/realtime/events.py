"""What a session tells → OpenAI's realtime events. Pure; knows neither the session nor how texts travel.

One turn of a conversation, as a client sees it:

    input_audio_buffer.speech_started ─ speech_stopped ─ committed ─ conversation.item.added ─ …transcription.completed
    response.created ─ output_item.added ─ content_part.added ─ output_audio_transcript.delta … (output_audio.delta …)
    output_audio_buffer.started … stopped|cleared ─ (conversation.item.truncated) ─ …done ─ response.done

A function call is an item of its own within the response, which goes on once its output was given back.

What OpenAI has no word for begins with `voice.`: states, held speech, backchannels, how far a text was heard, latency.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import singledispatchmethod
from typing import Any

from google.protobuf.json_format import MessageToJson
from voicemesh.brain.v1 import brain_pb2

from common.errors import MeshError, Overloaded
from common.stream import FinishReason
from services.gateway.realtime.commands import Refusal
from services.gateway.realtime.stages import milliseconds, stages_s
from services.gateway.session.ports import (
    PLAYED_RATE_HZ,
    AnswerEnded,
    AnswerStarted,
    Backchannel,
    Failed,
    FalseInterruption,
    PlayoutStarted,
    PlayoutStopped,
    SessionEvent,
    SpeechCandidate,
    StateChanged,
    ToolCalled,
    Transcript,
    TurnCommitted,
    TurnMeasured,
    UserAway,
    UserSpeechStarted,
    UserSpeechStopped,
)

Event = dict[str, Any]
_STATUS = {
    FinishReason.COMPLETED: "completed",
    FinishReason.CANCELLED: "cancelled",
    FinishReason.FAILED: "failed",
}
_CLIENT_FAULTS = ("INVALID_ARGUMENT", "NOT_FOUND", "FAILED_PRECONDITION")


@dataclass
class _Said:
    """A text as far as it has been told."""

    text: str = ""
    heard: int = 0
    final: bool = False  # nothing more is told of it


@dataclass
class _Answer:
    """A response that is open, or was the last."""

    turn: int
    epoch: int
    is_open: bool = True
    said: _Said = field(default_factory=_Said)
    calls: list[Event] = field(default_factory=list)  # of functions, for it

    @property
    def response_id(self) -> str:
        return f"resp_{self.epoch}"

    @property
    def item_id(self) -> str:
        return f"item_answer_{self.epoch}"


class Narrator:
    """Everything one client is told, in order. `over_webrtc`: sound has a channel of its own, so the events are about
    its buffer; otherwise sound is in the events."""

    def __init__(self, *, over_webrtc: bool) -> None:
        self._over_webrtc = over_webrtc
        self._counted = 0
        self._turns: dict[int, _Said] = {}
        self._answer: _Answer | None = None
        self._last_item: str | None = None
        self.client_asked_for_silence = False  # so that a cancelled answer can say who wanted it

    def tell(self, event: SessionEvent) -> list[Event]:
        """What to send for it."""
        return list(self._tell(event))

    def answer_of(self, item_id: str) -> int | None:
        """The epoch of the answer that has this item, the last one alone."""
        answer = self._answer
        return answer.epoch if answer is not None and answer.item_id == item_id else None

    @property
    def is_answering(self) -> bool:
        """A response is open."""
        return self._answer is not None and self._answer.is_open

    def sound(self, epoch: int, pcm: bytes) -> list[Event]:
        """Samples of an answer, PCM16; nothing when that answer is over."""
        answer = self._answer
        if answer is None or not answer.is_open or answer.epoch != epoch:
            return []
        return [self._of(answer, "response.output_audio.delta", delta=base64.b64encode(pcm).decode())]

    def event(self, kind: str, **fields: Any) -> Event:
        """One event with its id."""
        self._counted += 1
        return {"type": kind, "event_id": f"event_{self._counted}", **fields}

    def refused(self, refusal: Refusal) -> Event:
        """The client's message was refused."""
        error = {
            "type": "invalid_request_error",
            "code": refusal.code,
            "message": refusal.message,
            "param": refusal.param,
            "event_id": refusal.event_id,
        }
        return self.event("error", error=error)

    def failed(self, error: MeshError, event_id: str | None = None) -> Event:
        """A fault of ours, or of what the client asked for."""
        facts: Event = {**_error(error), "param": None, "event_id": event_id}
        if isinstance(error, Overloaded):
            facts["retry_after_s"] = error.retry_after_s
        return self.event("error", error=facts)

    def item_added(self, item_id: str, content: list[Event], role: str, status: str) -> Iterator[Event]:
        """An item is in the conversation: `added`, and `done` unless it is in progress."""
        yield from self._added(_item(item_id, role, content, status))

    def output_added(self, item_id: str, call_id: str, output: str) -> Iterator[Event]:
        """What the client's function gave is in the conversation."""
        item = {"id": item_id, "object": "realtime.item", "type": "function_call_output", "status": "completed"}
        yield from self._added({**item, "call_id": call_id, "output": output})

    def _added(self, item: Event) -> Iterator[Event]:
        yield self.event("conversation.item.added", item=item, previous_item_id=self._last_item)
        if item["status"] != "in_progress":
            yield self.event("conversation.item.done", item=item, previous_item_id=self._last_item)
        self._last_item = item["id"]

    @singledispatchmethod
    def _tell(self, event: Any) -> Iterator[Event]:
        raise AssertionError(f"{type(event).__name__} is no event of a session")

    @_tell.register
    def _(self, event: StateChanged) -> Iterator[Event]:
        yield self.event("voice.state", state=str(event.state), turn_id=event.turn, generation_id=event.epoch)

    @_tell.register
    def _(self, event: SpeechCandidate) -> Iterator[Event]:
        yield self.event("voice.speech_candidate", active=event.active)

    @_tell.register
    def _(self, event: UserSpeechStarted) -> Iterator[Event]:
        start_ms = max(0, round(event.audio_start_s * 1000))
        yield self.event("input_audio_buffer.speech_started", audio_start_ms=start_ms, item_id=_turn_id(event.turn))

    @_tell.register
    def _(self, event: UserSpeechStopped) -> Iterator[Event]:
        end_ms = max(0, round(event.audio_end_s * 1000))
        yield self.event("input_audio_buffer.speech_stopped", audio_end_ms=end_ms, item_id=_turn_id(event.turn))

    @_tell.register
    def _(self, event: TurnCommitted) -> Iterator[Event]:
        if event.typed:  # its item was added when the client created it, with its text
            self._turns[event.turn] = _Said(final=True)
            return
        item_id = _turn_id(event.turn)
        yield self.event("input_audio_buffer.committed", item_id=item_id, previous_item_id=self._last_item)
        content = [{"type": "input_audio", "transcript": None}]
        yield from self.item_added(item_id, content, "user", "completed")

    @_tell.register
    def _(self, event: Transcript) -> Iterator[Event]:
        yield from self._heard_of_person(event) if event.user else self._said_by_us(event)

    @_tell.register
    def _(self, event: AnswerStarted) -> Iterator[Event]:
        answer = self._answer = _Answer(event.turn, event.epoch)
        self.client_asked_for_silence = False
        yield self.event("response.created", response=self._response(answer, "in_progress", None))
        item = _item(answer.item_id, "assistant", [], "in_progress")
        yield self._of(answer, "response.output_item.added", item=item, of_content=False)
        yield from self.item_added(answer.item_id, [], "assistant", "in_progress")
        yield self._of(answer, "response.content_part.added", part={"type": "audio", "transcript": ""})

    @_tell.register
    def _(self, event: AnswerEnded) -> Iterator[Event]:
        answer = self._answer
        if answer is None or answer.epoch != event.epoch or not answer.is_open:
            return
        answer.is_open = False
        if not answer.said.text:
            answer.said.text = event.heard_text
        text = answer.said.text
        if event.reason is not FinishReason.COMPLETED and event.heard_sample_offset > 0:
            yield self._truncated(answer.item_id, event.heard_sample_offset / PLAYED_RATE_HZ)
            yield self.event(
                "voice.heard_text",
                item_id=answer.item_id,
                heard_characters=answer.said.heard,
                heard_text=event.heard_text,
            )
        yield self._of(answer, "response.output_audio.done")
        yield self._of(answer, "response.output_audio_transcript.done", transcript=text)
        yield self._of(answer, "response.content_part.done", part={"type": "audio", "transcript": text})
        status = "completed" if event.reason is FinishReason.COMPLETED else "incomplete"
        item = _item(answer.item_id, "assistant", [{"type": "output_audio", "transcript": text}], status)
        yield self._of(answer, "response.output_item.done", item=item, of_content=False)
        yield self.event("conversation.item.done", item=item, previous_item_id=None)
        yield self.event("response.done", response=self._response(answer, _status(event.reason), event))

    @_tell.register
    def _(self, event: PlayoutStarted) -> Iterator[Event]:
        if self._over_webrtc:
            yield self.event("output_audio_buffer.started", response_id=f"resp_{event.epoch}")

    @_tell.register
    def _(self, event: PlayoutStopped) -> Iterator[Event]:
        if self._over_webrtc:
            how = "cleared" if event.cleared else "stopped"
            yield self.event(f"output_audio_buffer.{how}", response_id=f"resp_{event.epoch}")

    @_tell.register
    def _(self, event: FalseInterruption) -> Iterator[Event]:
        yield self.event("voice.false_interruption", resumed=event.resumed)

    @_tell.register
    def _(self, event: Backchannel) -> Iterator[Event]:
        yield self.event("voice.backchannel")

    @_tell.register
    def _(self, event: ToolCalled) -> Iterator[Event]:
        answer = self._answer
        if answer is None or answer.epoch != event.epoch or not answer.is_open:
            return
        call = _call_item(event.call, MessageToJson(event.call.arguments, indent=None))
        answer.calls.append(call)
        place: Event = {"response_id": answer.response_id, "output_index": len(answer.calls)}
        asked = {**call, "arguments": "", "status": "in_progress"}
        yield self.event("response.output_item.added", item=asked, **place)
        yield self.event("conversation.item.added", item=asked, previous_item_id=self._last_item)
        facts = {name: call[name] for name in ("call_id", "name", "arguments")}
        yield self.event("response.function_call_arguments.done", item_id=call["id"], **place, **facts)
        yield self.event("response.output_item.done", item=call, **place)
        yield self.event("conversation.item.done", item=call, previous_item_id=self._last_item)
        self._last_item = call["id"]

    @_tell.register
    def _(self, event: TurnMeasured) -> Iterator[Event]:
        yield self.event(
            "voice.metrics",
            turn_id=event.turn,
            stages_ms=milliseconds(stages_s(event.milestones)),
            milestones_ms=milliseconds({str(name): at_s for name, at_s in event.milestones.items()}),
        )

    @_tell.register
    def _(self, event: Failed) -> Iterator[Event]:
        yield self.failed(event.error)

    @_tell.register
    def _(self, event: UserAway) -> Iterator[Event]:
        yield self.event("voice.user_away")

    def _heard_of_person(self, event: Transcript) -> Iterator[Event]:
        said, item_id = self._turns.setdefault(event.turn, _Said()), _turn_id(event.turn)
        while len(self._turns) > 8:  # late words are about the last turns
            self._turns.pop(next(iter(self._turns)))
        if said.final:
            return
        kind = "conversation.item.input_audio_transcription"
        yield from self._grown(
            said,
            event,
            item_id,
            lambda delta: self.event(f"{kind}.delta", item_id=item_id, content_index=0, delta=delta),
        )
        if event.final:
            said.final = True
            usage = {"type": "duration", "seconds": 0.0}
            yield self.event(f"{kind}.completed", item_id=item_id, content_index=0, transcript=event.text, usage=usage)

    def _said_by_us(self, event: Transcript) -> Iterator[Event]:
        answer = self._answer
        if answer is None or answer.turn != event.turn:
            return
        said = answer.said
        if answer.is_open:
            yield from self._grown(
                said,
                event,
                answer.item_id,
                lambda delta: self._of(answer, "response.output_audio_transcript.delta", delta=delta),
            )
        if event.heard_character_count != said.heard:
            said.heard = event.heard_character_count
            yield self.event("voice.heard_text", item_id=answer.item_id, heard_characters=said.heard)

    def _grown(
        self, said: _Said, event: Transcript, item_id: str, delta_event: Callable[[str], Event]
    ) -> Iterator[Event]:
        """What a text has grown by; OpenAI's deltas only append, so a text that changed is told whole, by our name."""
        if event.text.startswith(said.text):
            if delta := event.text[len(said.text) :]:
                yield delta_event(delta)
        else:
            yield self.event("voice.transcript", item_id=item_id, text=event.text)
        said.text = event.text

    def truncated(self, item_id: str, heard_s: float) -> list[Event]:
        """The answer to a client that told what it has heard; said again it does no harm."""
        return [self._truncated(item_id, heard_s)]

    def _truncated(self, item_id: str, heard_s: float) -> Event:
        end_ms = round(heard_s * 1000)
        return self.event("conversation.item.truncated", item_id=item_id, content_index=0, audio_end_ms=end_ms)

    def _of(self, answer: _Answer, kind: str, *, of_content: bool = True, **fields: Any) -> Event:
        place: Event = {"item_id": answer.item_id, "content_index": 0} if of_content else {}
        return self.event(kind, response_id=answer.response_id, output_index=0, **place, **fields)

    def _response(self, answer: _Answer, status: str, ended: AnswerEnded | None) -> Event:
        facts: Event = {
            "object": "realtime.response",
            "id": answer.response_id,
            "status": status,
            "output_modalities": ["audio"],
            "output": [],
            "metadata": {"turn_id": str(answer.turn), "generation_id": str(answer.epoch)},
        }
        if ended is None:
            return facts
        content = [{"type": "output_audio", "transcript": answer.said.text}]
        item_status = "completed" if status == "completed" else "incomplete"
        facts["output"] = [_item(answer.item_id, "assistant", content, item_status), *answer.calls]
        facts["status_details"] = self._details(status, ended)
        return facts

    def _details(self, status: str, ended: AnswerEnded) -> Event:
        details: Event = {"type": status, "finish_reason": ended.reason.name}
        if status == "cancelled":
            details["reason"] = "client_cancelled" if self.client_asked_for_silence else "turn_detected"
        if ended.reason is FinishReason.LENGTH:
            details["reason"] = "max_output_tokens"
        if ended.error is not None:
            details["error"] = _error(ended.error)
        return details


def _status(reason: FinishReason) -> str:
    return _STATUS.get(reason, "incomplete")


def _error(error: MeshError) -> Event:
    kind = "invalid_request_error" if error.status in _CLIENT_FAULTS else "server_error"
    return {"type": kind, "code": error.reason.lower(), "message": error.message}


def _turn_id(turn: int) -> str:
    return f"item_turn_{turn}"


def _call_item(call: brain_pb2.ToolCall, arguments: str) -> Event:
    return {
        "id": f"item_{call.id}",
        "object": "realtime.item",
        "type": "function_call",
        "status": "completed",
        "call_id": call.id,
        "name": call.name,
        "arguments": arguments,
    }


def _item(item_id: str, role: str, content: list[Event], status: str) -> Event:
    return {
        "id": item_id,
        "object": "realtime.item",
        "type": "message",
        "role": role,
        "status": status,
        "content": content,
    }
