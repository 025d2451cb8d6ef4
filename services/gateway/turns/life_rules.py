"""The rules of a session's life: it connects, is told to speak or be silent, loses its transport, drains, closes. Pure.

A rule is a function of the memory and the event; `table.py` says when it runs.
"""

from __future__ import annotations

from services.gateway.turns import flow
from services.gateway.turns.actions import EndAnswer, QueueSay, TurnDropped, UserAway
from services.gateway.turns.events import (
    AnswerRequested,
    Close,
    Connected,
    Drain,
    Interrupt,
    Released,
    Say,
    TransportLost,
)
from services.gateway.turns.memory import Memory, Said, Timer
from services.gateway.turns.states import Ending, Kind, State


def connected(memory: Memory, event: Connected) -> None:
    """Somebody is there."""
    flow.rest(memory)


def returned(memory: Memory, event: Connected) -> None:
    """20: somebody is there again: nothing of before is to be heard, what was asked is answered."""
    memory.raise_floor(memory.says[0].epoch if memory.says else memory.epoch + 1)
    flow.rest(memory)


def connect_too_long(memory: Memory) -> None:
    """Nobody came."""
    flow.shut(memory)


def transport_lost(memory: Memory, event: TransportLost) -> None:
    """19: nobody hears; what was asked and not heard answered is owed."""
    said = memory.said
    if said is not None and said.kind is Kind.ANSWER and not said.held and not said.audible:
        memory.owed = said.turn
    memory.end(Ending.SUSPENDED)
    memory.end_says(Ending.SUSPENDED)
    if memory.turn is not None:
        memory.out.append(TurnDropped(memory.turn.number))
        memory.turn = None
    if not memory.settings.answer_on_resume:
        memory.owed = None
    memory.cut = None
    memory.voice.forget()
    memory.enter(State.SUSPENDED)
    memory.arm(Timer.RESUME, memory.settings.resume_s)


def resume_window_over(memory: Memory) -> None:
    """21: nobody came back."""
    flow.shut(memory, Ending.SUSPENDED)


def interrupted_by_client(memory: Memory, event: Interrupt) -> None:
    """16: silence, and no turn of the user."""
    memory.end_says(Ending.CANCELLED)
    memory.cut = memory.owed = None
    if memory.said is None or memory.said.held:
        return
    memory.end(Ending.CANCELLED)
    flow.rest(memory)


def answer_requested(memory: Memory, event: AnswerRequested) -> None:
    """An answer to what is known already, not to a turn that could still go on."""
    flow.answer(memory, None)


def say(memory: Memory, event: Say) -> None:
    """Say something: now if nobody speaks or if it must be heard, else later."""
    said = Said(memory.allocate(), Kind.SAY, memory.committed, interruptible=event.interruptible)
    reachable = memory.state not in (State.CONNECTING, State.SUSPENDED)
    if reachable and not event.interruptible and (memory.said is None or memory.said.interruptible):
        _say_now(memory, said)
        return
    memory.says.append(said)
    memory.out.append(QueueSay(said.epoch))
    if len(memory.says) > max(1, memory.settings.queued_says):
        memory.out.append(EndAnswer(memory.says.popleft().epoch, Ending.SUPERSEDED, audible=False))
    if memory.state is not State.LISTENING:
        return
    if memory.voice.from_sample is None:
        flow.rest(memory)
    else:
        memory.expect_lapse()


def _say_now(memory: Memory, said: Said) -> None:
    """In place of what is being said; a question that had no answer yet gets it afterwards."""
    current = memory.said
    if current is not None:
        if current.kind is Kind.ANSWER and not current.held and not current.audible:
            memory.owed = current.turn
        memory.end(Ending.SUPERSEDED)
    memory.begin(Kind.SAY, memory.committed, epoch=said.epoch, interruptible=False)
    flow.think(memory)


def user_away(memory: Memory) -> None:
    """24: nobody has spoken for long."""
    memory.out.append(UserAway())


def drain(memory: Memory, event: Drain) -> None:
    """Finish what is going on, then close."""
    memory.draining = True
    memory.end_says(Ending.CANCELLED)
    if memory.state in (State.CONNECTING, State.LISTENING, State.SUSPENDED):
        flow.shut(memory)
    elif Timer.DRAIN not in memory.timers:
        memory.arm(Timer.DRAIN, memory.settings.drain_s)


def drained_too_long(memory: Memory) -> None:
    """It would not finish."""
    flow.shut(memory)


def close(memory: Memory, event: Close) -> None:
    """Now."""
    flow.shut(memory)


def released(memory: Memory, event: Released) -> None:
    """Nothing is left."""
    memory.enter(State.CLOSED)


def release_too_long(memory: Memory) -> None:
    """Whatever could not be released is not waited for."""
    memory.enter(State.CLOSED)
