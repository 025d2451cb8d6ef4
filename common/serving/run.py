"""A service as a process, or several in one: from configuration to READY to a clean end."""

from __future__ import annotations

import asyncio
import ctypes
import gc
import json
import logging
import signal
from collections.abc import Callable, Coroutine, Sequence
from contextlib import AsyncExitStack
from typing import Any, Protocol

from common.config import ServiceConfig
from common.errors import MeshError
from common.serving.server import PortTaken, Server
from common.telemetry import Telemetry, configure_logging

logger = logging.getLogger(__name__)
COLLECT_ALL_AFTER = 0
"""Collections of the middle generation before one of everything, instead of 10: after `settle` everything is little,
and what conversations leave in circles (0.2 MiB an answer) waits for half a minute instead of five."""


class Part(Protocol):
    """What lives as long as the service: an engine."""

    async def start(self) -> None:
        """Return when it is ready."""

    async def close(self) -> None:
        """Let go of everything; also called when `start` failed or was cut short."""


Build = Callable[[Server], Part]


def run_service(config: ServiceConfig, build: Build) -> int:
    """Run until SIGTERM or SIGINT; the exit code is 0 after a clean end, 1 when it could not start or broke.

    `build` makes the engine, adds its servicers to the server and returns it. The port is taken first, so that a taken
    one is told at once; calls are answered NOT_READY until the engine has started; then one line on standard output
    says READY. The first signal drains, a second one ends what still runs.
    """
    return run_services([(config, build)])


def run_services(members: Sequence[tuple[ServiceConfig, Build]]) -> int:
    """The same for several services that share this process, each with its own port, READY line and health; when one
    of them cannot start or breaks, all end."""
    configure_logging("+".join(config.service for config, _ in members), members[0][0].log_level)
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        return runner.run(_run_all(members))


async def _run_all(members: Sequence[tuple[ServiceConfig, Build]]) -> int:
    signals, turn = _Signals(), asyncio.Lock()
    codes = await asyncio.gather(*(_run(config, build, signals, turn) for config, build in members))
    return max(codes)


async def _run(config: ServiceConfig, build: Build, signals: _Signals, turn: asyncio.Lock) -> int:
    config.log_once()
    try:
        async with AsyncExitStack() as last:
            telemetry = _telemetry(config)
            last.push_async_callback(asyncio.to_thread, telemetry.close)
            server = Server(config, telemetry)
            part = build(server)
            last.push_async_callback(part.close)
            last.push_async_callback(server.stop)
            await server.start()
            if await _serve(server, part, signals, turn):
                return 0
    except (PortTaken, MeshError) as error:
        logger.critical("cannot serve", extra={"why": str(error), "part": config.service})
    except Exception:
        logger.critical("cannot serve", exc_info=True)
    signals.first.set()
    return 1


def _telemetry(config: ServiceConfig) -> Telemetry:
    settings = config.telemetry
    try:
        return Telemetry.open(settings)
    except OSError as error:
        why = error.strerror.lower() if error.strerror else "it cannot be listened on"
        raise PortTaken(f"Port {settings.metrics_port} for metrics on {settings.metrics_host}: {why}.") from None


async def start_in_turn(part: Part, turn: asyncio.Lock) -> None:
    """Parts of one process start one after another: while one captures CUDA graphs, nobody else may wait for the device
    or free its memory."""
    async with turn:
        await part.start()


async def _serve(server: Server, part: Part, signals: _Signals, turn: asyncio.Lock) -> bool:
    """From the engine's start to the last call; False when it broke. Raises what the engine's start raises."""
    await _first_of(start_in_turn(part, turn), signals.first.wait())
    if signals.first.is_set():
        return True
    settle()
    await server.set_ready(True)
    announce(server)
    await _first_of(signals.first.wait(), server.failed.wait())
    if server.failed.is_set():
        await server.drain(0)
        return False
    await _first_of(server.drain(server.config.drain_deadline_s), signals.second.wait())
    return True


def settle() -> None:
    """What was made to start stays for good: Python need not look through its 200,000 objects again and again, with
    everyone waiting (0.13 s of a busy core for the speech stages, docs/performance.md)."""
    gc.collect()
    gc.freeze()
    gc.collect()  # a full collection waits for a quarter of what the last one left: of these objects, but for this one
    young, middle, _ = gc.get_threshold()
    gc.set_threshold(young, middle, COLLECT_ALL_AFTER)
    if _trim is not None and _give_back not in gc.callbacks:
        gc.callbacks.append(_give_back)


_trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # of glibc alone


def _give_back(phase: str, info: dict[str, int]) -> None:
    """After a collection of everything the holes that it left in the heap are the machine's again (0.3 to 6 ms)."""
    if phase == "stop" and info["generation"] == 2 and _trim is not None:
        _trim(0)


def announce(server: Server) -> None:
    """The one line on standard output that says READY and where."""
    logger.info("ready", extra={"address": server.address, "metrics_port": server.telemetry.metrics_port})
    print(json.dumps({"service": server.config.service, "address": server.address} | server.announcement), flush=True)


class _Signals:
    """SIGTERM and SIGINT, counted."""

    def __init__(self) -> None:
        self.first = asyncio.Event()
        self.second = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, self._seen)

    def _seen(self) -> None:
        (self.second if self.first.is_set() else self.first).set()


async def _first_of(*waits: Coroutine[Any, Any, object]) -> None:
    """Wait for one, cancel the rest; raise what a finished one raised."""
    tasks = [asyncio.ensure_future(wait) for wait in waits]
    done, rest = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in rest:
        task.cancel()
    await asyncio.gather(*rest, return_exceptions=True)
    for task in done:
        task.result()


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop
