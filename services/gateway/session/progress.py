"""Sound on its way out, as the pacer tells of it: an answer's first block, its end, and signs of life in between."""

from __future__ import annotations

import asyncio
from typing import Protocol

from services.gateway.media import playout as media
from services.gateway.session import ports
from services.gateway.session.agent import Agent
from services.gateway.session.measures import Measures
from services.gateway.session.steps import Alarms
from services.gateway.turns.events import Event, PlayoutDrained, PlayoutProgress

EVERY_S = 0.25  # between two signs of life of what is being played


class Hub(Protocol):
    """The turn machine and the client."""

    @property
    def wanted_epoch(self) -> int | None: ...
    def post(self, event: Event) -> None: ...
    def tell(self, event: ports.SessionEvent) -> None: ...


class Progress:
    """`played` is called on the loop."""

    def __init__(self, hub: Hub, agent: Agent, measures: Measures, alarms: Alarms) -> None:
        self._hub = hub
        self._agent = agent
        self._measures = measures
        self._alarms = alarms
        self._time = asyncio.get_running_loop().time

    def played(self, first_of: int | None, unix_s: float, news: tuple[media.PlayoutEvent, ...]) -> None:
        """See `mouth.Told`."""
        if first_of is not None:
            self._agent.is_heard(first_of, unix_s)
            self._look_later()
        for event in news:
            self._measures.played(event)
            if isinstance(event, media.Finished):
                due_s, epoch = self._time() + self._agent.client_buffer_s, event.epoch
                self._alarms.set("drained", due_s, lambda epoch=epoch: self._drained(epoch))  # type: ignore[misc]

    def _drained(self, epoch: int) -> None:
        self._hub.tell(ports.PlayoutStopped(epoch, cleared=False))
        self._hub.post(PlayoutDrained(epoch))

    def _look_later(self) -> None:
        self._alarms.set("progress", self._time() + EVERY_S, self._look)

    def _look(self) -> None:
        epoch = self._hub.wanted_epoch
        speech = None if epoch is None else self._agent.speeches.get(epoch)
        if epoch is None or speech is None:
            return
        if self._agent.has_moved(epoch):
            self._hub.post(PlayoutProgress(epoch))
            self._agent.teller.progress(speech)
        self._look_later()
