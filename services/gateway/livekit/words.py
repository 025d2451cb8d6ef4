"""What a session tells, in LiveKit's words: the agent's state, and transcriptions as text streams. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from services.gateway.session.ports import State, Transcript

STATE_ATTRIBUTE = "lk.agent.state"
TRANSCRIPTION_TOPIC = "lk.transcription"
CHAT_TOPIC = "lk.chat"
EVENTS_TOPIC = "voice.events"
SEGMENT_ID = "lk.segment_id"
IS_FINAL = "lk.transcription_final"
TRACK_ID = "lk.transcribed_track_id"

INITIALIZING, IDLE, LISTENING, THINKING, SPEAKING = "initializing", "idle", "listening", "thinking", "speaking"
_STATES = {
    State.CONNECTING: INITIALIZING,
    State.LISTENING: LISTENING,
    State.USER_SPEAKING: LISTENING,
    State.ENDPOINTING: LISTENING,
    State.THINKING: THINKING,
    State.SPEAKING: SPEAKING,
    State.HOLD: SPEAKING,
    State.INTERRUPTED: LISTENING,
    State.RECOVERING: THINKING,
    State.SUSPENDED: IDLE,
    State.CLOSING: IDLE,
}


def agent_state(state: State) -> str:
    """The value of the attribute for a state of the turn machine."""
    return _STATES[state]


@dataclass(frozen=True)
class Passage:
    """One piece of a transcription to send. `opens`: in a stream of its own; `closes`: nothing follows in that one."""

    segment_id: str
    user: bool
    text: str
    opens: bool
    closes: bool
    final: bool


@dataclass
class _Sent:
    text: str = ""
    is_open: bool = False


class Subtitles:
    """What of each text the room has been sent. Texts come whole, as far as they are known; of several that wait only
    the latest counts.

    An answer grows in one stream, delta by delta. What the person says may still change: each version is a stream of
    its own with the same segment, and replaces the one before.
    """

    def __init__(self) -> None:
        self._waiting: dict[str, Transcript] = {}
        self._sent: dict[str, _Sent] = {}

    def take(self, transcript: Transcript) -> None:
        """A text is known so far."""
        self._waiting[_segment(transcript)] = transcript

    def next(self) -> Passage | None:
        """What to send now; None when the room has everything."""
        while self._waiting:
            segment_id, transcript = next(iter(self._waiting.items()))
            del self._waiting[segment_id]
            passage = self._passage(segment_id, transcript)
            if passage is not None:
                return passage
        return None

    def forget(self) -> None:
        """The room was left: what was open there is not any more."""
        self._sent.clear()

    def _passage(self, segment_id: str, transcript: Transcript) -> Passage | None:
        sent = self._sent.setdefault(segment_id, _Sent())
        text, user, final = transcript.text, transcript.user, transcript.final
        if final:
            del self._sent[segment_id]
        if user:
            if text == sent.text and not final:
                return None
            sent.text = text
            return Passage(segment_id, True, text, opens=True, closes=True, final=final)
        extends = sent.is_open and text.startswith(sent.text)
        delta = text[len(sent.text) :] if extends else text
        if not delta and not (final and sent.is_open):
            return None
        sent.text, sent.is_open = text, True
        return Passage(segment_id, False, delta, opens=not extends, closes=final, final=final)


def _segment(transcript: Transcript) -> str:
    return f"{'user' if transcript.user else 'answer'}-{transcript.turn}"
