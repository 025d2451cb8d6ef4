"""The supervisor over real processes: one READY line each, restarts, drains, and never an orphan."""

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from cli.supervisor import LONGEST_BACKOFF_S, SAME_SIGNAL_S, STABLE_AFTER_S, Backoff
from tests.cli.supervised import ROOT, children, gone, running

SCRIPT = Path(__file__).with_name("service_script.py")
PROGRAM = """
import asyncio, json, sys
from cli.supervisor import ChildSpec, supervise
specs = [ChildSpec(**spec) for spec in json.loads(sys.argv[1])]
sys.exit(asyncio.run(supervise(specs, float(sys.argv[2]), "all are there")))
"""


def child(name, *flags, drains_first=False):
    return {"name": name, "arguments": [str(SCRIPT), name, *flags], "drains_first": drains_first}


def pids_of(ready):
    """A test service says its pid where others say their port."""
    return {name: int(line["address"].split(":")[1]) for name, line in ready.items()}


@pytest.fixture
def supervised():
    def run(*specs, drain_deadline_s=5.0):
        return running([sys.executable, "-c", PROGRAM, json.dumps(specs), str(drain_deadline_s)])

    return run


def test_stdout_has_exactly_the_ready_lines(supervised):
    with supervised(child("a", "--chatter"), child("b")) as run:
        assert set(run.ready(2)) == {"a", "b"}
        assert run.end() == (0, b"")
        assert "loading, please wait" in run.said()
        assert "no newline at the end" in run.said()


def test_a_person_is_welcomed_once_when_all_are_ready(supervised):
    with supervised(child("a"), child("b")) as run:
        pids = pids_of(run.ready(2))
        os.kill(pids["a"], signal.SIGKILL)
        run.until_said("a is READY again")
        assert run.end() == (0, b"")
        assert run.said().count("all are there") == 1
    with supervised(child("a"), child("b", "--fail", "1")) as run:
        assert run.process.wait(10) == 1
        assert "all are there" not in run.said()


@pytest.mark.fault
def test_a_killed_child_is_ready_again_and_its_line_is_not_repeated(supervised):
    with supervised(child("a"), child("b")) as run:
        pids = pids_of(run.ready(2))
        os.kill(pids["a"], signal.SIGKILL)
        run.until_said("a is READY again")
        run.until_said("a was killed by SIGKILL; starting it again in 0.5 s")
        assert psutil.pid_exists(pids["b"])
        assert run.end() == (0, b"")


@pytest.mark.fault
def test_no_child_outlives_a_killed_supervisor(supervised):
    with supervised(child("a", "--deaf"), child("b", "--slow-end", "30")) as run:
        pids = pids_of(run.ready(2))
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
        pids = pids_of(run.ready(2))
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
        begin = time.monotonic()
        while run.process.poll() is None:  # as an impatient person would
            run.process.send_signal(signal.SIGINT)
            with suppress(subprocess.TimeoutExpired):
                run.process.wait(0.1)
        assert run.process.returncode == 0
        assert SAME_SIGNAL_S <= time.monotonic() - begin + 0.1 < 10


def test_one_end_that_arrives_twice_at_once_still_drains(supervised, tmp_path):
    log = tmp_path / "log"
    with supervised(child("a", "--slow-end", "0.3", "--log", str(log))) as run:
        run.ready(1)
        run.process.send_signal(signal.SIGTERM)
        assert run.end(signal.SIGTERM) == (0, b"")
    assert log.read_text().splitlines() == ["a SIGTERM"]


def test_a_child_that_cannot_start_ends_everything(supervised):
    with supervised(child("a"), child("b", "--fail", "3")) as run:
        assert run.process.wait(10) == 1
        assert not children(run.process.pid)
    assert "b could not start (exit code 3)" in run.said()


def test_the_backoff_doubles_to_its_limit_and_is_forgotten_after_a_stable_minute():
    backoff = Backoff()
    waits = [backoff.after(1.0) for _ in range(9)]
    assert waits[:4] == [0.5, 1.0, 2.0, 4.0]
    assert waits[-1] == LONGEST_BACKOFF_S
    assert backoff.after(STABLE_AFTER_S) == 0.5
    assert backoff.after(0.0) == 1.0
