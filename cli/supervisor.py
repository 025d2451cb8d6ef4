"""`voicemesh serve all`: one child process per service, kept alive, ended together.

Standard output carries exactly one READY line per service, the child's own, the first time it is READY; a later READY
of a restarted child is told on standard error, for a reader of standard output has long counted its lines. Everything
else a child prints goes to standard error.

A child that fails to start (exits by itself before it was ever READY) ends everything with code 1: its configuration or
its model is wrong, and trying again would not mend it. A child that dies later, or is killed at any time, is started
again after a back-off that doubles from 0.5 s to 30 s and is forgotten after a minute of READY. SIGTERM and SIGINT
drain: first those marked `drains_first`, so that speech under way still has its stages, then the rest; a second signal
or the deadline kills. Refuses to know what the services are.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field

FIRST_BACKOFF_S = 0.5
LONGEST_BACKOFF_S = 30.0
STABLE_AFTER_S = 60.0
SAME_SIGNAL_S = 0.5
_LINE_LIMIT_BYTES = 1 << 20


@dataclass(frozen=True)
class ChildSpec:
    """One process: `python ARGUMENT…`, which prints one JSON line with "service" for each of its services when that is
    READY. `services` is [name] unless it has several."""

    name: str
    arguments: Sequence[str]
    environment: Mapping[str, str] = field(default_factory=dict)
    drains_first: bool = False
    services: tuple[str, ...] = ()

    @property
    def announces(self) -> tuple[str, ...]:
        """The services whose READY lines it prints."""
        return self.services or (self.name,)


class Backoff:
    """How long to wait before the next start (pure)."""

    def __init__(self) -> None:
        self._next_s = FIRST_BACKOFF_S

    def after(self, ready_for_s: float) -> float:
        """Seconds to wait after the death of a child that had been READY for so long (0: never)."""
        if ready_for_s >= STABLE_AFTER_S:
            self._next_s = FIRST_BACKOFF_S
        wait_s, self._next_s = self._next_s, min(2 * self._next_s, LONGEST_BACKOFF_S)
        return wait_s


class StartFailed(Exception):
    """A child ended by itself before it was READY."""


class _Child:
    """One service over all its processes."""

    def __init__(self, spec: ChildSpec, stopping: asyncio.Event, on_ready: Callable[[str], None]) -> None:
        self.spec = spec
        self.ended = asyncio.Event()
        self._stopping, self._on_ready = stopping, on_ready
        self._process: asyncio.subprocess.Process | None = None
        self._announced: set[str] = set()
        self._ready: set[str] = set()
        self._ready_at: float | None = None

    async def keep(self) -> None:
        """Run the child until everything stops; StartFailed when it cannot be started."""
        backoff = Backoff()
        try:
            while not self._stopping.is_set():
                code = await self._run_once()
                if self._stopping.is_set():
                    return
                await self._pause(code, backoff)
        finally:
            self.ended.set()

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the process that runs now, if any."""
        if self._process is not None and self._process.returncode is None:
            self._process.send_signal(number)

    async def _run_once(self) -> int:
        self._ready_at = None
        self._ready.clear()
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "cli.child",
            str(os.getpid()),
            *self.spec.arguments,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            env={**os.environ, **self.spec.environment},
            process_group=0,  # Ctrl-C in a terminal reaches us alone: a child takes a second signal as impatience
            limit=_LINE_LIMIT_BYTES,
        )
        assert self._process.stdout is not None
        try:
            await self._relay(self._process.stdout)
            return await self._process.wait()
        finally:
            if self._process.returncode is None:  # cancelled, because another child could not start
                self._process.kill()
                await self._process.wait()

    async def _relay(self, stdout: asyncio.StreamReader) -> None:
        begin = time.monotonic()
        async for line in _lines(stdout):
            ready = _ready_line(line, self.spec.announces)
            if ready is None:
                sys.stderr.buffer.write(line)
                sys.stderr.flush()
                continue
            name = str(ready["service"])
            self._ready.add(name)
            if len(self._ready) == len(self.spec.announces):
                self._ready_at = time.monotonic()
            if name not in self._announced:
                self._announced.add(name)
                _print_line(line)
                self._on_ready(name)
            else:
                took_s = time.monotonic() - begin
                say(f"{name} is READY again at {ready.get('address')}, after {took_s:.1f} s.")

    async def _pause(self, code: int, backoff: Backoff) -> None:
        if len(self._announced) < len(self.spec.announces) and code >= 0:
            raise StartFailed(f"{self.spec.name} could not start (exit code {code}); its reason stands above.")
        ready_for_s = time.monotonic() - self._ready_at if self._ready_at is not None else 0.0
        wait_s = backoff.after(ready_for_s)
        say(f"{self.spec.name} {_how_it_ended(code)}; starting it again in {wait_s:g} s.")
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._stopping.wait(), wait_s)


async def supervise(specs: Sequence[ChildSpec], drain_deadline_s: float, welcome: str | None = None) -> int:
    """Run all children until a signal (0) or a failed start (1); `welcome` is said once all have been READY."""
    stopping, signals, waited_for = asyncio.Event(), _Signals(), set[str]()
    waited_for.update(name for spec in specs for name in spec.announces)

    def on_ready(name: str) -> None:
        waited_for.discard(name)
        if welcome and not waited_for:
            say(welcome)

    children = [_Child(spec, stopping, on_ready) for spec in specs]
    exit_code = 0
    try:
        async with asyncio.TaskGroup() as tasks:
            for child in children:
                tasks.create_task(child.keep())
            tasks.create_task(_drain_on_signal(children, stopping, signals, drain_deadline_s))
    except* StartFailed as group:
        for error in group.exceptions:
            say(str(error))
        exit_code = 1
    finally:
        signals.restore()
    return exit_code


async def _drain_on_signal(
    children: Sequence[_Child], stopping: asyncio.Event, signals: _Signals, drain_deadline_s: float
) -> None:
    await signals.first.wait()
    stopping.set()
    say(f"ending: running speech may finish within {drain_deadline_s:g} s; a second signal ends it now.")
    try:
        async with asyncio.timeout(drain_deadline_s):
            for early in (True, False):
                wave = [child for child in children if child.spec.drains_first is early]
                for child in wave:
                    child.signal(signal.SIGTERM)
                await signals.unless_second(asyncio.gather(*(child.ended.wait() for child in wave)))
    except TimeoutError:
        say("the drain deadline passed.")
    for child in children:
        if not child.ended.is_set():
            say(f"killing {child.spec.name}.")
            child.signal(signal.SIGKILL)


class _Signals:
    """SIGTERM and SIGINT: the first asks, a second one after it insists.

    One end may arrive twice at once, to the process and to its group (`timeout` does that): that is one signal."""

    def __init__(self) -> None:
        self._first_at = math.inf
        self.first, self._second = asyncio.Event(), asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, self._arrived)

    def _arrived(self) -> None:
        now = asyncio.get_running_loop().time()
        if not self.first.is_set():
            self._first_at = now
            self.first.set()
        elif now - self._first_at >= SAME_SIGNAL_S:
            self._second.set()

    async def unless_second(self, awaited: asyncio.Future[list[bool]]) -> None:
        """Wait for `awaited`, but no longer than until the second signal."""
        second = asyncio.ensure_future(self._second.wait())
        try:
            await asyncio.wait((awaited, second), return_when=asyncio.FIRST_COMPLETED)
        finally:
            second.cancel()
            awaited.cancel()

    def restore(self) -> None:
        """As before; after a signal that was obeyed, one more while this process ends means nothing."""
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().remove_signal_handler(number)
            if self.first.is_set():
                signal.signal(number, signal.SIG_IGN)


def say(sentence: str) -> None:
    """One line for a person, on standard error."""
    print(f"voicemesh: {sentence}", file=sys.stderr, flush=True)


async def _lines(stdout: asyncio.StreamReader) -> AsyncIterator[bytes]:
    """Lines with their newline; of a line beyond the limit, the pieces."""
    while True:
        try:
            line = await stdout.readuntil(b"\n")
        except asyncio.IncompleteReadError as error:
            if error.partial:
                yield error.partial
            return
        except asyncio.LimitOverrunError as error:
            line = await stdout.readexactly(error.consumed)
        yield line


def _ready_line(line: bytes, names: Sequence[str]) -> dict[str, object] | None:
    """The READY message in a line, or None when the line is something else."""
    try:
        message = json.loads(line)
    except ValueError:
        return None
    return message if isinstance(message, dict) and message.get("service") in names else None


def _print_line(line: bytes) -> None:
    try:
        sys.stdout.buffer.write(line.rstrip(b"\n") + b"\n")
        sys.stdout.flush()
    except BrokenPipeError:  # a reader that has gone is no reason to end the services
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _how_it_ended(code: int) -> str:
    if code >= 0:
        return f"ended with exit code {code}"
    try:
        return f"was killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"was killed by signal {-code}"
