"""The turn machine on an event loop: one step at a time, and awake when it is due.

What an action leads to waits until all actions of the step are done. Refuses to know what actions mean.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from services.gateway.turns.actions import Action
from services.gateway.turns.events import Event, Tick
from services.gateway.turns.machine import TurnMachine


class Alarms:
    """Calls that are due at some time, by name; one that is set again takes the place of itself. `broken` is told what
    one of them raised."""

    def __init__(self, broken: Callable[[BaseException], None]) -> None:
        self._broken = broken
        self._loop = asyncio.get_running_loop()
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._is_closed = False

    def set(self, name: str, due_s: float | None, call: Callable[[], None]) -> None:
        """`due_s` by the loop's clock; None: never."""
        self.clear(name)
        if due_s is not None and not self._is_closed:
            self._timers[name] = self._loop.call_at(due_s, self._run, call)

    def _run(self, call: Callable[[], None]) -> None:
        try:
            call()
        except Exception as error:
            self._broken(error)

    def clear(self, name: str) -> None:
        """Not any more."""
        timer = self._timers.pop(name, None)
        if timer is not None:
            timer.cancel()

    def close(self) -> None:
        """Nothing is due any more."""
        self._is_closed = True
        for name in tuple(self._timers):
            self.clear(name)


class Steps:
    """`do` does one action; `done` is called after all actions of a step."""

    def __init__(
        self, machine: TurnMachine, alarms: Alarms, do: Callable[[Action], None], done: Callable[[], None]
    ) -> None:
        self._machine = machine
        self._alarms = alarms
        self._do = do
        self._done = done
        self._time = asyncio.get_running_loop().time
        self._events: deque[Event] = deque()
        self._is_stepping = False

    def post(self, event: Event) -> None:
        """Something happened."""
        self._events.append(event)
        if self._is_stepping:
            return
        self._is_stepping = True
        try:
            while self._events:
                for action in self._machine.step(self._events.popleft(), self._time()):
                    self._do(action)
                self._done()
        finally:
            self._is_stepping = False
            self._alarms.set("machine", self._machine.due_s, lambda: self.post(Tick()))
