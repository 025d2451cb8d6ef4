"""A running supervisor for tests: its READY lines, what it says, and which of its children still live."""

from __future__ import annotations

import json
import os
import selectors
import signal
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parents[2]


class Supervised:
    """A running supervisor: stdout line by line, stderr gathered by a thread that tells whoever waits for words."""

    def __init__(self, process):
        self.process, self._buffer = process, b""
        self._said, self._heard = "", threading.Condition()
        self._listener = threading.Thread(target=self._listen)
        self._listener.start()

    def ready(self, count, timeout_s=60.0):
        """The next `count` READY lines by service."""
        lines = [self._line(timeout_s) for _ in range(count)]
        return {line["service"]: line for line in lines}

    def until_said(self, words, timeout_s=60.0):
        with self._heard:
            assert self._heard.wait_for(lambda: words in self._said, timeout_s), f"{words!r} not in: {self._said}"

    def said(self):
        """All of stderr, once the supervisor has ended."""
        self._listener.join(10)
        return self._said

    def end(self, number=signal.SIGTERM, timeout_s=60.0):
        """Signal the supervisor; its exit code and what else it printed on stdout."""
        self.process.send_signal(number)
        return self.process.wait(timeout_s), self._buffer + self.process.stdout.read()

    def close(self):
        self.process.kill()
        self.process.wait(10)
        self._listener.join(10)
        self.process.stdout.close()
        self.process.stderr.close()

    def _line(self, timeout_s):
        deadline = time.monotonic() + timeout_s
        with selectors.DefaultSelector() as selector:
            selector.register(self.process.stdout, selectors.EVENT_READ)
            while b"\n" not in self._buffer:
                assert selector.select(max(0.0, deadline - time.monotonic())), f"no line; stderr: {self._said}"
                piece = os.read(self.process.stdout.fileno(), 65536)
                assert piece, f"stdout ended; stderr: {self.said()}"
                self._buffer += piece
        line, _, self._buffer = self._buffer.partition(b"\n")
        return json.loads(line)

    def _listen(self):
        while piece := os.read(self.process.stderr.fileno(), 65536):
            with self._heard:
                self._said += piece.decode()
                self._heard.notify_all()


@contextmanager
def running(arguments: Sequence[str]) -> Iterator[Supervised]:
    """A supervisor in a process group of its own, as a terminal would start it; nothing of it outlives the block."""
    process = subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT, process_group=0)
    supervised = Supervised(process)
    try:
        yield supervised
    finally:
        for child in children(process.pid):
            child.kill()
        supervised.close()


def gone(pids, timeout_s=60.0):
    """Whether all these processes have ended, waiting for it."""
    _, alive = psutil.wait_procs([psutil.Process(pid) for pid in pids if psutil.pid_exists(pid)], timeout_s)
    return not alive


def children(pid):
    try:
        return psutil.Process(pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []
