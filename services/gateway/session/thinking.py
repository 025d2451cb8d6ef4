"""What the brain is told when a turn begins: who it is, what was said before, whose trace this is."""

from __future__ import annotations

from voicemesh.brain.v1 import brain_pb2
from voicemesh.stream.v1 import stream_pb2

from services.gateway.session.brain_client import BrainAnswer, Listener
from services.gateway.session.history import History
from services.gateway.session.house import House, Spawn
from services.gateway.session.person import Ear, Owner, Turn
from services.gateway.session.ports import SessionSettings


def opened(
    house: House,
    owner: Owner,
    spawn: Spawn,
    session_id: str,
    turn: Turn,
    settings: SessionSettings,
    history: History,
    speculates: bool,
) -> Ear:
    """A brain stream for that turn, before anything of it is said, running. `speculates`: what is not committed yet
    may be answered on a guess."""
    ear = Ear(owner, turn.number)
    ear.history_revision = history.revision
    traceparent, tracestate = turn.timeline.work.trace_parent()
    start = brain_pb2.RespondStart(
        instructions=settings.instructions,
        history=history.before(turn.number),
        want_transcript=settings.want_transcript and not (turn.is_committed and not turn.audio),
        trace=stream_pb2.TraceContext(traceparent=traceparent, tracestate=tracestate),
        speculative=speculates and not turn.is_committed,
        tools=settings.tools,
    )
    if settings.temperature is not None:
        start.sampling.temperature = settings.temperature
    if settings.max_tokens is not None:
        start.sampling.max_tokens = settings.max_tokens
    ear.brain = BrainAnswer(house.stages, session_id, start, house.numbers.patience, ear, turn.tools)
    spawn(ear.brain.run())
    return ear


def overheard(house: House, spawn: Spawn, session_id: str, listener: Listener) -> BrainAnswer:
    """A brain stream that is wanted for its transcript alone, running."""
    start = brain_pb2.RespondStart(want_transcript=True, speculative=True)
    brain = BrainAnswer(house.stages, session_id, start, house.numbers.patience, listener)
    spawn(brain.run())
    return brain
