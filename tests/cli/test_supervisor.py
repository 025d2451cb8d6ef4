"""The supervisor over real processes: one READY line each, restarts, drains, and never an orphan."""

import json
import os
import selectors
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from cli.supervisor import LONGEST_BACKOFF_S, STABLE_AFTER_S, Backoff

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = Path(__file__).with_name("service_script.py")
PROGRAM = """
import asyncio, json, sys
from cli.supervisor import ChildSpec, supervise
specs = [ChildSpec(**spec) for spec in json.loads(sys.argv[1])]
sys.exit(asyncio.run(supervise(specs, float(sys.argv[2]))))
"""


def child(name, *flags, drains_first=False):
    return {"name": name, "arguments": [str(SCRIPT), name, *flags], "drains_first": drains_first}


class Supervised:
    """A running supervisor: stdout line by line, stderr gathered by a thread that tells whoever waits for words."""

    def __init__(self, process):
        self.process, self._buffer = process, b""
        self._said, self._heard = "", threading.Condition()
        self._listener = threading.Thread(target=self._listen)
        self._listener.start()

    def ready(self, count):
        """name → pid of the next `count` READY lines."""
        lines = [self._line() for _ in range(count)]
        return {line["service"]: int(line["address"].split(":")[1]) for line in lines}

    def until_said(self, words, timeout_s=10.0):
        with self._heard:
            assert self._heard.wait_for(lambda: words in self._said, timeout_s), f"{words!r} not in: {self._said}"

    def said(self):
        """All of stderr, once the supervisor has ended."""
        self._listener.join(10)
        return self._said

    def end(self, number=signal.SIGTERM, timeout_s=10.0):
        """Signal the supervisor; its exit code and what else it printed on stdout."""
        self.process.send_signal(number)
        return self.process.wait(timeout_s), self._buffer + self.process.stdout.read()

    def close(self):
        self.process.kill()
        self.process.wait(10)
        self._listener.join(10)
        self.process.stdout.close()
        self.process.stderr.close()

    def _line(self, timeout_s=10.0):
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


@pytest.fixture
def supervised():
    @contextmanager
    def run(*specs, drain_deadline_s=5.0):
        arguments = [sys.executable, "-c", PROGRAM, json.dumps(specs), str(drain_deadline_s)]
        process = subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT, process_group=0)
        running = Supervised(process)
        try:
            yield running
        finally:
            for grandchild in _children(process.pid):
                grandchild.kill()
            running.close()

    return run


def gone(pids, timeout_s=10.0):
    """Whether all these processes have ended, waiting for it."""
    _, alive = psutil.wait_procs([psutil.Process(pid) for pid in pids if psutil.pid_exists(pid)], timeout_s)
    return not alive


def _children(pid):
    try:
        return psutil.Process(pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def test_stdout_has_exactly_the_ready_lines(supervised):
    with supervised(child("a", "--chatter"), child("b")) as run:
        assert set(run.ready(2)) == {"a", "b"}
        assert run.end() == (0, b"")
        assert "loading, please wait" in run.said()
        assert "no newline at the end" in run.said()


@pytest.mark.fault
def test_a_killed_child_is_ready_again_and_its_line_is_not_repeated(supervised):
    with supervised(child("a"), child("b")) as run:
        pids = run.ready(2)
        os.kill(pids["a"], signal.SIGKILL)
        run.until_said("a is READY again")
        run.until_said("a was killed by SIGKILL; starting it again in 0.5 s")
        assert psutil.pid_exists(pids["b"])
        assert run.end() == (0, b"")


@pytest.mark.fault
def test_no_child_outlives_a_killed_supervisor(supervised):
    with supervised(child("a", "--deaf"), child("b", "--slow-end", "30")) as run:
        pids = run.ready(2)
        run.process.kill()
        assert gone(pids.values())


def test_a_child_whose_parent_has_gone_does_not_begin(tmp_path):
    witness = tmp_path / "witness"
    somebody_else = str(os.getppid())
    program = f"open({str(witness)!r}, 'w')"
    done = subprocess.run([sys.executable, "-m", "cli.child", somebody_else, "-c", program], cwd=ROOT, check=False)
    assert done.returncode == 1
    assert not witness.exists()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_drains_the_children_in_order(supervised, tmp_path, number):
    log = tmp_path / "log"
    first = child("gateway", "--slow-end", "0.3", "--log", str(log), drains_first=True)
    with supervised(child("codec", "--log", str(log)), first) as run:
        run.ready(2)
        assert run.end(number) == (0, b"")
    assert log.read_text().splitlines() == ["gateway SIGTERM", "codec SIGTERM"]


def test_an_interrupt_from_the_terminal_reaches_a_child_once(supervised, tmp_path):
    log = tmp_path / "log"
    with supervised(child("a", "--slow-end", "0.3", "--log", str(log))) as run:
        run.ready(1)
        os.killpg(run.process.pid, signal.SIGINT)  # as a terminal does, to the whole foreground group
        assert run.process.wait(10) == 0
    assert log.read_text().splitlines() == ["a SIGTERM"]


def test_the_deadline_ends_a_child_that_does_not(supervised):
    with supervised(child("a", "--deaf"), child("b"), drain_deadline_s=0.3) as run:
        pids = run.ready(2)
        assert run.end() == (0, b"")
        assert gone(pids.values(), 0)
    assert "the drain deadline passed" in run.said()
    assert "killing a" in run.said()
    assert "killing b" not in run.said()


def test_a_second_signal_ends_at_once(supervised):
    with supervised(child("a", "--deaf"), drain_deadline_s=60.0) as run:
        run.ready(1)
        run.process.send_signal(signal.SIGINT)
        run.until_said("a second signal ends it now")
        assert run.end(signal.SIGINT) == (0, b"")


def test_a_child_that_cannot_start_ends_everything(supervised):
    with supervised(child("a"), child("b", "--fail", "3")) as run:
        assert run.process.wait(10) == 1
        assert not _children(run.process.pid)
    assert "b could not start (exit code 3)" in run.said()


def test_the_backoff_doubles_to_its_limit_and_is_forgotten_after_a_stable_minute():
    backoff = Backoff()
    waits = [backoff.after(1.0) for _ in range(9)]
    assert waits[:4] == [0.5, 1.0, 2.0, 4.0]
    assert waits[-1] == LONGEST_BACKOFF_S
    assert backoff.after(STABLE_AFTER_S) == 0.5
    assert backoff.after(0.0) == 1.0
