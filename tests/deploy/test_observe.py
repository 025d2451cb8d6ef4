"""`make observe`: a real Prometheus reads a real page, and our rules run over it."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from typing import Any
from urllib.error import URLError
from urllib.parse import quote
from urllib.request import urlopen

import pytest

from cli.addresses import DEFAULT_PORTS
from common.telemetry import Milestone, Telemetry, TelemetrySettings
from tests.deploy.test_kubernetes import CONFIGS
from tests.deploy.test_monitoring import ALARMS, RECORDED
from tests.deploy.tools import program
from tests.mesh.processes import ROOT
from tools.observe import default_targets

pytestmark = pytest.mark.timeout(90)


def test_it_looks_where_the_services_serve_their_pages() -> None:
    pages = [f"127.0.0.1:{CONFIGS[service]().telemetry.metrics_port}" for service in DEFAULT_PORTS]
    assert default_targets() == pages


def answer(address: str, path: str) -> dict[str, Any]:
    """What Prometheus answers there, nothing while it does not."""
    try:
        with urlopen(f"http://{address}/api/v1/{path}", timeout=10) as page:
            found: dict[str, Any] = json.load(page)["data"]
            return found
    except (URLError, ConnectionError, TimeoutError):
        return {}


def series(address: str, expression: str) -> list[Any]:
    """The result of a query, empty while there is none."""
    return list(answer(address, f"query?query={quote(expression)}").get("result", ()))


def test_a_real_prometheus_reads_a_page_and_takes_the_rules() -> None:
    program("prometheus")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
    telemetry = Telemetry.open(TelemetrySettings("tts_lm", metrics_port=0))
    telemetry.observer("tts_lm").slots(3, 4)
    turn = telemetry.turn()
    turn.milestone(Milestone.USER_SPEECH_END, 1.0)
    turn.milestone(Milestone.PLAYOUT_FIRST, 1.4)
    command = ["-m", "tools.observe", "--listen", address, "--target", f"127.0.0.1:{telemetry.metrics_port}"]
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'gen'}"}
    process = subprocess.Popen([sys.executable, *command], cwd=ROOT, env=environment, stdout=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 75
        while not (found := series(address, RECORDED["voicemesh:stage_slots:used_share"])):
            assert process.poll() is None
            assert time.monotonic() < deadline, "the page was never read"
            time.sleep(0.2)
        assert found[0]["metric"]["voicemesh_stage"] == "tts_lm"
        assert float(found[0]["value"][1]) == 0.75
        assert series(address, "voicemesh_turn_time_to_first_audio_seconds_count")
        groups = answer(address, "rules")["groups"]
        taken_rules = {rule["name"] for group in groups for rule in group["rules"] if rule["health"] != "err"}
        assert taken_rules == RECORDED.keys() | ALARMS.keys()
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
        telemetry.close()
