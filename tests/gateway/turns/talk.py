"""A turn machine with a clock of its own and somebody who speaks in whole windows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any, TypeVar

from services.gateway.turns.actions import Action, BeginAnswer, StateChanged
from services.gateway.turns.events import AnswerText, AudioReady, Connected, Event, PlayoutProgress, Tick, VoiceWindow
from services.gateway.turns.machine import TurnMachine
from services.gateway.turns.settings import TurnSettings
from services.gateway.turns.states import LISTEN_RATE_HZ, State

WINDOW = 512
WINDOW_S = WINDOW / LISTEN_RATE_HZ
A = TypeVar("A", bound=Action)


class Talk:
    """Connected and listening; `did` is all that the machine asked for since it was last cleared."""

    def __init__(self, connect: bool = True, **settings: Any) -> None:
        self.now_s = 100.0
        self.sample = 0
        self.machine = TurnMachine(replace(TurnSettings(), **settings), self.now_s)
        self.did: list[Action] = []
        if connect:
            self.tell(Connected())

    def tell(self, event: Event, after_s: float = 0.0) -> tuple[Action, ...]:
        self.now_s += after_s
        actions = self.machine.step(event, self.now_s)
        self.did += actions
        return actions

    def window(self, voiced: bool, echo: bool = False) -> tuple[Action, ...]:
        self.sample += WINDOW
        return self.tell(VoiceWindow(self.sample, WINDOW, voiced, echo), WINDOW_S)

    def speak(self, seconds: float) -> None:
        for _ in range(round(seconds / WINDOW_S)):
            self.window(True)

    def pause(self, seconds: float) -> None:
        for _ in range(round(seconds / WINDOW_S)):
            self.window(False)

    def wait(self, seconds: float) -> None:
        """Let time pass without any sound; ticks come when they are due."""
        end_s = self.now_s + seconds
        while (due_s := self.machine.due_s) is not None and due_s <= end_s:
            self.now_s = max(due_s, self.now_s)
            self.tell(Tick())
        self.now_s = end_s

    def ask(self) -> int:
        """A spoken turn, committed; returns the epoch that answers it."""
        self.speak(0.64)
        self.pause(0.5)
        assert self.state is State.THINKING
        return self.wanted

    def answer(self) -> int:
        """A spoken turn whose answer is being heard, for longer than the guard of its first second."""
        epoch = self.ask()
        self.tell(AnswerText(epoch))
        self.tell(AudioReady(epoch))
        assert self.state is State.SPEAKING
        self.keep_playing(1.2)
        return epoch

    def keep_playing(self, seconds: float) -> None:
        for _ in range(round(seconds / WINDOW_S)):
            self.window(False)
            self.tell(PlayoutProgress(self.wanted))

    @property
    def state(self) -> State:
        return self.machine.state

    @property
    def wanted(self) -> int:
        epoch = self.machine.wanted_epoch
        assert epoch is not None
        return epoch

    def of(self, kind: type[A]) -> list[A]:
        return [action for action in self.did if isinstance(action, kind)]

    def one(self, kind: type[A]) -> A:
        (action,) = self.of(kind)
        return action

    def begun(self) -> Iterator[BeginAnswer]:
        return iter(self.of(BeginAnswer))

    def states(self) -> list[State]:
        return [action.state for action in self.of(StateChanged)]
