"""Who is asked next when a replica refuses an utterance or is lost with it, and when to give up.

Nobody has answered yet: every replica is asked once, at once; when one of them was full, its refusal is the answer,
and otherwise all are asked again with growing pauses. Once speech has begun it is worth waiting for: a full replica is
asked again like a dead one. Knows no stream and no message.
"""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass

from common.errors import (
    AccessDenied,
    Broken,
    InvalidRequest,
    MeshError,
    OutOfOrder,
    OutOfTime,
    Overloaded,
    UnknownName,
)
from services.gateway.clients import Replica, Replicas

_FIRST_PAUSE_S = 0.05
_LONGEST_PAUSE_S = 1.0
_MAX_BROKEN = 2  # what breaks two replicas in a row would break the third
_MAX_LOSSES = 5  # an utterance that so many replicas took and did not survive is what kills them
# Another replica would say the same, or nobody waits any more.
_FINAL = (InvalidRequest, UnknownName, OutOfOrder, OutOfTime, AccessDenied)


@dataclass(frozen=True)
class Patience:
    """For how long to look for a replica: before speech has begun, since its last packet, and, when all are full, for a
    place to go on with speech that has begun."""

    connect_s: float = 2.0
    resume_s: float = 10.0
    full_s: float = 60.0


class Search:
    """One utterance's way through the replicas of one stage."""

    def __init__(self, replicas: Replicas, session_id: str, patience: Patience) -> None:
        self._replicas = replicas
        self._session_id = session_id
        self._patience = patience
        self._time = asyncio.get_running_loop().time
        self._tried: list[Replica] = []
        self._asked: Replica | None = None
        self._refusal: Overloaded | None = None
        self._has_begun = False
        self._broken = self._losses = self._rounds = 0
        self._lost_s: float | None = None

    def admitted(self) -> None:
        """The replica took the utterance: those that did not are forgotten, and may be asked again."""
        assert self._asked is not None, "whoever admits was asked"
        self._replicas.settle(self._session_id, self._asked)
        self._refusal, self._rounds, self._lost_s = None, 0, None
        self._tried.clear()

    def progressed(self) -> None:
        """Something of it was made: it is worth waiting for, and does not kill who takes it."""
        self._has_begun, self._broken, self._losses = True, 0, 0

    async def next(self, error: MeshError | None = None) -> Replica:
        """Whom to ask, after `error` of the one before. Raises when nobody is left to be asked."""
        if error is not None:
            self._judge(error)
        if self._lost_s is None:
            self._lost_s = self._time()
        found = self._replicas.choose(self._session_id, self._tried)
        while found is None:
            await self._pause()
            self._tried.clear()
            self._refusal = None  # who was full may be dead by now
            found = self._replicas.choose(self._session_id)
        self._tried.append(found)
        self._asked = found
        return found

    def _judge(self, error: MeshError) -> None:
        self._broken += isinstance(error, Broken)
        if self._asked is not None and self._asked not in self._tried:  # it had been admitted there
            self._losses += 1
            self._tried.append(self._asked)
        if isinstance(error, _FINAL) or self._broken >= _MAX_BROKEN or self._losses >= _MAX_LOSSES:
            raise error
        if isinstance(error, Overloaded):
            self._refusal = error

    async def _pause(self) -> None:
        """Before the next round, for as long as patience lasts."""
        if self._refusal is not None and not self._has_begun:
            raise self._refusal
        longest_s = _FIRST_PAUSE_S if self._refusal is not None else _LONGEST_PAUSE_S  # a place is soon another's
        pause_s = min(_FIRST_PAUSE_S * 2 ** min(self._rounds, 16), longest_s) * random.uniform(0.5, 1.0)
        self._rounds += 1
        assert self._lost_s is not None
        patience_s = self._patience.resume_s if self._has_begun else self._patience.connect_s
        if self._refusal is not None:
            patience_s = self._patience.full_s
        if self._time() + pause_s > self._lost_s + patience_s:
            raise self._refusal or self._replicas.down()
        await asyncio.sleep(pause_s)
