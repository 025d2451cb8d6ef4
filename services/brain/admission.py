"""Who gets in: slots for turns, and whether the backend behind them is alive. Knows no model and no transport."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator

from common.errors import MeshError, NotReady, Overloaded
from common.observer import NOBODY, Observer
from services.brain.backend import Backend
from services.brain.limits import BrainLimits, check_request
from services.brain.turn import BrainTurn
from services.brain.types import BrainInfo, TurnRequest

logger = logging.getLogger(__name__)


class BrainEngine:
    """The `Engine` over any backend. All tasks live in one group, owned by `_live`, from `start` to `close`."""

    def __init__(
        self, backend: Backend, limits: BrainLimits | None = None, instructions: str = "", observer: Observer = NOBODY
    ) -> None:
        self._backend = backend
        self._limits = limits or BrainLimits()
        self._instructions = instructions
        self._observer = observer
        self._turns: set[BrainTurn] = set()
        self._ready = False
        self._change = asyncio.Event()
        self._doubt = asyncio.Event()
        self._closing = asyncio.Event()
        self._life: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """See `Engine`. A backend elsewhere that is not there yet leaves the engine not ready, and is awaited."""
        try:
            await self._backend.start()
        except NotReady as error:
            logger.warning("the backend is not there yet", extra={"reason": error.reason})
        else:
            self._ready = True
        up: asyncio.Future[asyncio.TaskGroup] = asyncio.get_running_loop().create_future()
        self._life = asyncio.create_task(self._live(up))
        self._group = await up

    async def _live(self, up: asyncio.Future[asyncio.TaskGroup]) -> None:
        async with asyncio.TaskGroup() as group:
            watch = group.create_task(self._watch())
            up.set_result(group)
            await self._closing.wait()
            for turn in self._turns:
                turn.cancel()
            watch.cancel()

    def submit(self, request: TurnRequest) -> BrainTurn:
        """See `Engine`. Speculative turns never take the last slot."""
        if self._closing.is_set():
            raise NotReady("the brain is shutting down", reason="DRAINING")
        if not self._ready:
            raise NotReady("what answers here is down", reason="DEPENDENCY_DOWN")
        check_request(request, self._limits)
        reserve = min(self._limits.reserve_slots, self._limits.slot_count - 1) if request.speculative else 0
        if len(self._turns) >= self._limits.slot_count - reserve:
            raise Overloaded(f"all {self._limits.slot_count - reserve} slots are taken")
        turn = BrainTurn(request, self._backend, self._limits, self._instructions)
        self._turns.add(turn)
        self._observer.slots(len(self._turns), self._limits.slot_count)
        turn.start(self._group.create_task).add_done_callback(lambda _: self._release(turn))
        return turn

    def _release(self, turn: BrainTurn) -> None:
        self._turns.discard(turn)
        self._observer.slots(len(self._turns), self._limits.slot_count)
        if (end := turn.ended) is not None:
            self._observer.ended(
                end.reason.name, time_to_first_s=end.time_to_first_s, compute_s=end.compute_s, audio_s=0.0
            )
        if turn.fault is not None:
            self._doubt.set()

    def info(self) -> BrainInfo:
        """See `Engine`."""
        about = self._backend.info()
        free = self._limits.slot_count - len(self._turns) if self._ready else 0
        return BrainInfo(
            model_id=about.model_id,
            backend=about.backend,
            tokenizer_fingerprint=about.tokenizer_fingerprint,
            hears_audio=about.hears_audio,
            calls_tools=about.calls_tools,
            slot_count=self._limits.slot_count,
            free_slot_count=free,
        )

    async def readiness(self) -> AsyncIterator[bool]:
        """See `Engine`."""
        told: bool | None = None
        while not self._closing.is_set():
            change = self._change
            if told is not self._ready:
                told = self._ready
                yield told
            else:
                await change.wait()

    async def _watch(self) -> None:
        """Ask the backend now and then, and at once when a turn had a fault, whether it could answer."""
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._limits.check_interval_s):
                    await self._doubt.wait()
            self._doubt.clear()
            try:
                async with asyncio.timeout(self._limits.check_timeout_s):
                    await self._backend.check()
            except (MeshError, TimeoutError) as error:
                self._tell_ready(False, error)
            except Exception as error:
                logger.exception("the check of the backend failed")
                self._tell_ready(False, error)
            else:
                self._tell_ready(True, None)

    def _tell_ready(self, ready: bool, error: Exception | None) -> None:
        if ready is self._ready:
            return
        self._ready = ready
        logger.warning("backend", extra={"ready": ready, "error": type(error).__name__ if error else ""})
        self._notify()

    def _notify(self) -> None:
        self._change.set()
        self._change = asyncio.Event()

    async def close(self) -> None:
        """See `Engine`."""
        self._closing.set()
        self._notify()
        if self._life is not None:
            await self._life
        await self._backend.close()
