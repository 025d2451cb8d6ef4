"""The turn machine of one conversation: events in, actions out, by the table. Pure: no clock, no loop, no sound.

    machine = TurnMachine(TurnSettings(), now_s=clock())
    for action in machine.step(Connected(), clock()): do(action)
    ...
    wait until machine.due_s, then machine.step(Tick(), clock())

Every step takes constant time. Whoever drives it does all actions of a step, in order, before anything else happens;
what they lead to comes back as events. `README.md` beside this file says how to wire it.
"""

from __future__ import annotations

import math

from services.gateway.turns.actions import Action
from services.gateway.turns.events import Event, VoiceWindow
from services.gateway.turns.memory import Memory
from services.gateway.turns.settings import TurnSettings
from services.gateway.turns.states import State
from services.gateway.turns.table import ON_EVENT, ON_TIMER


class TurnMachine:
    """Whose turn it is. Begins in CONNECTING; `now_s` is seconds of one monotonic clock, here and in every step."""

    def __init__(self, settings: TurnSettings, now_s: float, *, first_epoch: int = 1) -> None:
        self._memory = Memory(settings, now_s, first_epoch)

    def step(self, event: Event, now_s: float) -> tuple[Action, ...]:
        """Take an event, then let time pass to `now_s`. Events that mean nothing now give no action.

        An event comes before the timers that would have run out meanwhile: where the loop was late, what has come
        counts, not what was late.
        """
        memory = self._memory
        memory.now_s = max(now_s, memory.now_s)
        memory.out = []
        rule = ON_EVENT.get((memory.state, type(event)))
        if rule is not None:
            rule(memory, event)
        elif isinstance(event, VoiceWindow):
            memory.voice.hear(event)
        if memory.timers:
            self._run_out(memory)
        return tuple(memory.out)

    @staticmethod
    def _run_out(memory: Memory) -> None:
        """Every timer that is due by now, once; a timer that this arms anew is for the next step."""
        for timer in [timer for timer, due_s in memory.timers.items() if due_s <= memory.now_s]:
            if memory.timers.get(timer, math.inf) <= memory.now_s:
                del memory.timers[timer]
                ON_TIMER[memory.state, timer](memory)

    def configure(self, settings: TurnSettings) -> None:
        """Other settings from now on. A turn that is being spoken ends by the rules of the state that it is in."""
        self._memory.settings = settings

    @property
    def due_s(self) -> float | None:
        """When the next `Tick` is due; None while nothing is waited for (LISTENING, with nobody ever away)."""
        return min(self._memory.timers.values(), default=None)

    @property
    def state(self) -> State:
        """Where the conversation is."""
        return self._memory.state

    @property
    def settings(self) -> TurnSettings:
        """The numbers in force."""
        return self._memory.settings

    @property
    def epoch(self) -> int:
        """The newest epoch handed out; one below the first before any was."""
        return self._memory.epoch

    @property
    def wanted_epoch(self) -> int | None:
        """The epoch that is being made or heard, held ones included."""
        return self._memory.said.epoch if self._memory.said else None

    @property
    def floor(self) -> int:
        """The smallest epoch that may still be heard."""
        return self._memory.floor

    @property
    def turn(self) -> int:
        """The turn being spoken, else the newest."""
        return self._memory.turn_number

    @property
    def learned_pause_s(self) -> float:
        """What was learned of this user's pauses."""
        return self._memory.endpoint.learned_s
