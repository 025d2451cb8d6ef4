"""Real processes for tests: started on free ports, read until READY, ended by their id."""

from __future__ import annotations

import json
import os
import selectors
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
SERVICES = ("gateway", "brain", "tts_lm", "codec")


@dataclass
class Mesh:
    """A running `voicemesh serve all`: its process and the READY line of each service."""

    process: subprocess.Popen[bytes]
    ready: dict[str, dict[str, str]] = field(default_factory=dict)

    def address(self, service: str) -> str:
        """host:port of one service."""
        return self.ready[service]["address"]


def read_ready_lines(process: subprocess.Popen[bytes], count: int, timeout_s: float) -> dict[str, dict[str, str]]:
    """The next `count` READY lines on a process's stdout; raises AssertionError when it dies or takes too long."""
    assert process.stdout is not None
    deadline = time.monotonic() + timeout_s
    ready: dict[str, dict[str, str]] = {}
    buffered = b""
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        while len(ready) < count:
            left = deadline - time.monotonic()
            assert left > 0, f"only {sorted(ready)} READY after {timeout_s} s"
            if not selector.select(left):
                continue
            piece = os.read(process.stdout.fileno(), 65536)
            assert piece, f"ended with {process.wait(5)} when only {sorted(ready)} were READY"
            buffered += piece
            *lines, buffered = buffered.split(b"\n")
            for line in lines:
                message = json.loads(line)
                ready[message["service"]] = message
    return ready


def end(process: subprocess.Popen[bytes], timeout_s: float = 15.0) -> int:
    """Ask a process to end, insist if it does not, and return its exit code."""
    if process.poll() is None:
        process.terminate()
    try:
        return process.wait(timeout_s)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait(5)


def start(arguments: Sequence[str], environment: dict[str, str] | None = None) -> subprocess.Popen[bytes]:
    """`python …arguments` from the project's root with stdout as a pipe."""
    variables = {**os.environ, "OMP_NUM_THREADS": "1", **(environment or {})}
    variables["PYTHONPATH"] = os.pathsep.join([str(ROOT), str(ROOT / "gen")])
    return subprocess.Popen([sys.executable, *arguments], stdout=subprocess.PIPE, cwd=ROOT, env=variables)


@contextmanager
def running_mesh(*flags: str, environment: dict[str, str] | None = None, timeout_s: float = 60.0) -> Iterator[Mesh]:
    """All four services behind the supervisor, as `make run` starts them but on free ports."""
    process = start(["-m", "cli", "serve", "all", "--ports", "free", *flags], environment)
    try:
        yield Mesh(process, read_ready_lines(process, len(SERVICES), timeout_s))
    finally:
        end(process)
        assert process.stdout is not None
        process.stdout.close()
