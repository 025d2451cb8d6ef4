"""`python -m services.brain` serves the brain until told to stop; `--help` lists every setting."""

from __future__ import annotations

import asyncio
import sys

from common.config import load_or_exit
from common.serving import Server, run_service
from services.brain.config import BrainConfig
from services.brain.engine import Engine, create_engine
from services.brain.server import register


class ReadyWhileItAnswers:
    """The engine as the service runs it: READY when its backend first answers, and health follows it from then on."""

    def __init__(self, engine: Engine, server: Server) -> None:
        self._engine = engine
        self._server = server
        self._follower: asyncio.Task[None] | None = None
        self._first = asyncio.Event()

    async def start(self) -> None:
        """Return when turns can be answered."""
        await self._engine.start()
        self._follower = asyncio.create_task(self._follow())  # ends in `close`
        await self._first.wait()

    async def _follow(self) -> None:
        async for ready in self._engine.readiness():
            if self._first.is_set():
                await self._server.set_ready(ready)
            elif ready:
                self._first.set()

    async def close(self) -> None:
        """Close the engine; its readiness ends with it."""
        await self._engine.close()
        if self._follower is not None:
            self._follower.cancel()
            await asyncio.wait([self._follower])


def main() -> int:
    config = load_or_exit(BrainConfig)

    def build(server: Server) -> ReadyWhileItAnswers:
        observer = server.telemetry.observer("brain")
        engine = create_engine(config.options, config.turn_limits, config.instructions, observer)
        register(server, engine, config)
        return ReadyWhileItAnswers(engine, server)

    return run_service(config, build)


if __name__ == "__main__":
    sys.exit(main())
