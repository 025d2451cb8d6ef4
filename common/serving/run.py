"""A service as a process: from configuration to READY to a clean end."""

from __future__ import annotations

import asyncio
import json
import logging
import signal
from collections.abc import Callable
from typing import Protocol

from common.config import ServiceConfig
from common.serving.server import PortTaken, Server
from common.telemetry import Telemetry, configure_logging

logger = logging.getLogger(__name__)


class Part(Protocol):
    """What lives as long as the service: an engine."""

    async def start(self) -> None:
        """Return when it is ready."""

    async def close(self) -> None:
        """Let go of everything."""


def run_service(config: ServiceConfig, build: Callable[[Server], Part]) -> int:
    """Run until SIGTERM or SIGINT and return the exit code: 0 after a clean end, 1 when it could not start or failed.

    `build` makes the engine, adds its servicers to the server and returns it. The port is taken first, so that a taken
    one is told at once; calls are answered NOT_READY until the engine has started; then one line on standard output
    says READY.
    """
    configure_logging(config.service, config.log_level)
    config.log_once()
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        return runner.run(_run(config, build))


async def _run(config: ServiceConfig, build: Callable[[Server], Part]) -> int:
    stop = _stop_signal()
    try:
        telemetry = Telemetry.open(config.telemetry)
    except OSError:
        logger.error("cannot start", extra={"why": f"Metrics port {config.telemetry.metrics_port} is taken."})
        return 1
    server = Server(config, telemetry)
    part = build(server)
    try:
        await server.start()
    except PortTaken as error:
        logger.error("cannot start", extra={"why": str(error)})
        return 1
    try:
        await _serve(server, part, stop)
    finally:
        await server.stop()
        await part.close()
        await asyncio.to_thread(telemetry.close)
    return 0


async def _serve(server: Server, part: Part, stop: asyncio.Event) -> None:
    starting = asyncio.ensure_future(part.start())
    stopping = asyncio.ensure_future(stop.wait())
    await asyncio.wait((starting, stopping), return_when=asyncio.FIRST_COMPLETED)
    if not starting.done():
        starting.cancel()
        return
    await starting
    await server.set_ready(True)
    announce(server)
    await stopping
    await server.drain(server.config.drain_deadline_s)


def announce(server: Server) -> None:
    """The one line on standard output that says READY and where."""
    print(json.dumps({"service": server.config.service, "address": server.address} | server.announcement), flush=True)


def _stop_signal() -> asyncio.Event:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    return stop


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop
