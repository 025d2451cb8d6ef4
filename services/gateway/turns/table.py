"""The turn machine as a table: in which state which event runs which rule. Pure.

Numbers are those of the survey that the machine was designed from (its section 2.3) and of `README.md`, which has the
same table in words. What is not in the table is ignored: an event that has no row in a state changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from services.gateway.turns import agent_rules as agent
from services.gateway.turns import life_rules as life
from services.gateway.turns import user_rules as user
from services.gateway.turns.events import (
    AnswerBusy,
    AnswerFailed,
    AnswerRequested,
    AnswerText,
    AudioReady,
    ClearInput,
    Close,
    CommitInput,
    Connected,
    Drain,
    EchoReport,
    Event,
    Interrupt,
    OverlapJudged,
    PlayoutDrained,
    PlayoutProgress,
    Released,
    Say,
    TransportLost,
    TurnEmpty,
    TurnJudged,
    Typed,
    VoiceWindow,
)
from services.gateway.turns.memory import Memory, Timer
from services.gateway.turns.states import State

EventRule = Callable[[Memory, Any], None]
TimerRule = Callable[[Memory], None]

_USER = (State.USER_SPEAKING, State.ENDPOINTING)
_WAITING = (State.THINKING, State.RECOVERING)
_AUDIBLE = (State.SPEAKING, State.HOLD)
_TALKING = (State.LISTENING, *_USER, *_WAITING, *_AUDIBLE)
_OPEN = (State.CONNECTING, *_TALKING, State.SUSPENDED)

# rule, states, event or timer, what is done
_EVENTS: tuple[tuple[str, tuple[State, ...], type[Event], EventRule], ...] = (
    ("1 2", (State.LISTENING,), VoiceWindow, user.listen),
    ("3", (State.USER_SPEAKING,), VoiceWindow, user.follow_speech),
    ("4 5 6", (State.ENDPOINTING,), VoiceWindow, user.await_end),
    ("5", (State.ENDPOINTING,), TurnJudged, user.judged),
    ("6", (State.ENDPOINTING, *_WAITING), TurnEmpty, user.turn_empty),
    ("7", (State.ENDPOINTING, *_WAITING), AudioReady, agent.audio_ready),
    ("8", _WAITING, VoiceWindow, user.speak_before_answer),
    ("9", (State.SPEAKING,), VoiceWindow, agent.overlap),
    ("9", _OPEN, EchoReport, agent.echo),
    ("10 11 12", (State.HOLD,), VoiceWindow, agent.decide),
    ("10 12", (State.HOLD,), OverlapJudged, agent.overlap_judged),
    ("14", (State.SPEAKING,), PlayoutProgress, agent.progress),
    ("14", (State.ENDPOINTING, *_WAITING, *_AUDIBLE), AnswerText, agent.text_came),
    ("14", (*_WAITING, *_AUDIBLE), AnswerBusy, agent.tool_runs),
    ("15", (State.ENDPOINTING, *_WAITING, *_AUDIBLE), PlayoutDrained, agent.drained),
    ("16", _TALKING, Interrupt, life.interrupted_by_client),
    ("17", (State.ENDPOINTING, *_WAITING, *_AUDIBLE), AnswerFailed, agent.failed),
    ("19", (State.CONNECTING, *_TALKING), TransportLost, life.transport_lost),
    ("20", (State.SUSPENDED,), Connected, life.returned),
    ("typed", _TALKING, Typed, user.typed),
    ("commit", _TALKING, CommitInput, user.commit_input),
    ("clear", _TALKING, ClearInput, user.clear_input),
    ("request", (State.LISTENING,), AnswerRequested, life.answer_requested),
    ("say", _OPEN, Say, life.say),
    ("begin", (State.CONNECTING,), Connected, life.connected),
    ("drain", _OPEN, Drain, life.drain),
    ("end", _OPEN, Close, life.close),
    ("end", (State.CLOSING,), Released, life.released),
)

_TIMERS: tuple[tuple[str, tuple[State, ...], Timer, TimerRule], ...] = (
    ("1 8", (State.LISTENING, *_WAITING), Timer.CANDIDATE, user.candidate_gone),
    ("5 6", (State.ENDPOINTING,), Timer.COMMIT, user.end_of_turn),
    ("12", (State.HOLD,), Timer.VERDICT, agent.verdict_missing),
    ("13", (State.HOLD,), Timer.HOLD, agent.undecided),
    ("17", _WAITING, Timer.FIRST_TEXT, agent.first_sound_missing),
    ("17", _WAITING, Timer.FIRST_AUDIO, agent.first_sound_missing),
    ("17", (State.SPEAKING,), Timer.APOLOGY, agent.apology_over),
    ("18", (State.SPEAKING,), Timer.STALL, agent.stalled),
    ("21", (State.SUSPENDED,), Timer.RESUME, life.resume_window_over),
    ("22", _USER, Timer.SOUND, user.sound_missing),
    ("23", (State.USER_SPEAKING,), Timer.MAX_TURN, user.turn_too_long),
    ("24", (State.LISTENING,), Timer.AWAY, life.user_away),
    ("begin", (State.CONNECTING,), Timer.CONNECT, life.connect_too_long),
    ("drain", _OPEN, Timer.DRAIN, life.drained_too_long),
    ("end", (State.CLOSING,), Timer.CLOSE, life.release_too_long),
)

ON_EVENT: dict[tuple[State, type[Event]], EventRule] = {
    (state, event): rule for _, states, event, rule in _EVENTS for state in states
}
ON_TIMER: dict[tuple[State, Timer], TimerRule] = {
    (state, timer): rule for _, states, timer, rule in _TIMERS for state in states
}
