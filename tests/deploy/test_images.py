"""Images and the compose file, as far as they can be checked without building: what they pin, hold and run."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest
import yaml

from cli.main import _parser
from common.config import load
from services.gateway.config import GatewayConfig
from tests.deploy.rendered import DEPLOY, environment, pod, workloads
from tests.deploy.test_kubernetes import CONFIGS, own_name
from tests.mesh.processes import SERVICES, end, read_ready_lines

ROOT = DEPLOY.parent
FLAVOURS = ("cpu", "cuda")
flavours = pytest.mark.parametrize("flavour", FLAVOURS)


def instructions(flavour: str) -> list[tuple[str, str]]:
    """(instruction, the rest) of a Dockerfile, its continued lines joined."""
    text = (DEPLOY / "images" / f"{flavour}.Dockerfile").read_text(encoding="utf-8")
    lines = re.sub(r"\\\n", " ", "\n".join(line for line in text.splitlines() if not line.startswith("#"))).splitlines()
    return [(word, rest.strip()) for word, _, rest in (line.partition(" ") for line in lines if line.strip())]


def last_stage(flavour: str) -> list[tuple[str, str]]:
    found = instructions(flavour)
    return found[max(index for index, (word, _) in enumerate(found) if word == "FROM") :]


@flavours
def test_bases_are_pinned_and_shared_by_both_stages(flavour: str) -> None:
    found = instructions(flavour)
    arguments = dict(rest.split("=", 1) for word, rest in found if word == "ARG")
    bases = [rest.split()[0] for word, rest in found if word == "FROM"]
    assert bases == ["python:${PYTHON}-slim-bookworm"] * 2
    assert re.fullmatch(r"3\.\d+\.\d+", arguments["PYTHON"])


@flavours
def test_what_runs_is_nobody_and_gets_signals_itself(flavour: str) -> None:
    stage = dict(last_stage(flavour))
    assert stage["USER"] == "10001:10001"
    assert stage["ENTRYPOINT"] == '["python", "-m", "cli"]'
    assert stage["STOPSIGNAL"] == "SIGTERM"
    last = [word for word, _ in last_stage(flavour)]
    assert last.index("USER") > max(index for index, word in enumerate(last) if word in ("RUN", "COPY"))


@flavours
def test_the_image_opens_the_ports_of_the_code(flavour: str) -> None:
    configs = [kind() for kind in CONFIGS.values()]
    ports = {it.port for it in configs} | {it.telemetry.metrics_port for it in configs}
    ports |= {it.http_port for it in configs if isinstance(it, GatewayConfig)}
    assert set(map(int, dict(last_stage(flavour))["EXPOSE"].split())) == ports


@flavours
def test_the_build_takes_the_dependencies_of_the_project_and_its_pins(flavour: str) -> None:
    runs = " ".join(rest for word, rest in instructions(flavour) if word == "RUN")
    assert runs.count("--constraint constraints.txt") >= 2
    assert "--no-deps" in runs
    pinned = yaml.safe_load("[" + re.findall(r"requires = \[(.*?)\]", (ROOT / "pyproject.toml").read_text())[0] + "]")
    assert all(f'"{it}"' in runs for it in pinned if it.startswith(("setuptools", "grpcio-tools")))
    assert ("optional-dependencies" in runs) == (flavour == "cuda")


def test_both_flavours_hold_the_same_of_the_repository() -> None:
    held = {(DEPLOY / "images" / f"{flavour}.Dockerfile.dockerignore").read_text() for flavour in FLAVOURS}
    assert len(held) == 1


@pytest.mark.timeout(240)
def test_what_an_image_holds_is_enough_to_start_everything(tmp_path: Path) -> None:
    rules = (DEPLOY / "images" / "cpu.Dockerfile.dockerignore").read_text(encoding="utf-8").splitlines()
    for path in (line[1:] for line in rules if line.startswith("!")):
        target = tmp_path / path
        target.parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / path).is_dir():
            shutil.copytree(ROOT / path, target, ignore=shutil.ignore_patterns("__pycache__", "*.wav"))
        else:
            shutil.copy(ROOT / path, target)
    shutil.copytree(ROOT / "gen", tmp_path / "gen")  # what its build generates
    environment = {
        "PATH": "/usr/bin:/bin",
        "HOME": str(tmp_path),
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": f"{tmp_path}:{tmp_path / 'gen'}",
        "VOICEMESH_TTS_LM_MODEL": str(tmp_path / "voices" / "mini"),
        "VOICEMESH_CODEC_MODEL": str(tmp_path / "voices" / "mini"),
    }
    # Everything that is imported when a service starts, and the one service that has files of its own to show.
    imports = ", ".join(["cli.main", "services.tts_lm.load", *(f"services.{service}.__main__" for service in SERVICES)])
    subprocess.run([sys.executable, "-P", "-c", f"import {imports}"], cwd=tmp_path, env=environment, check=True)
    command = [sys.executable, "-P", "-m", "cli", "serve", "gateway", "--ports", "free"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, cwd=tmp_path, env=environment)
    try:
        (line,) = read_ready_lines(process, 1, 75).values()
        with urlopen(f"{line['http']}/healthz", timeout=20) as answer:
            assert answer.status == 200
    finally:
        end(process)
        assert process.stdout is not None
        process.stdout.close()


def test_where_tts_lm_runs_on_a_processor_its_kernels_are_built_first() -> None:
    (before,) = pod(workloads("bare")["tts-lm"])["initContainers"]
    (serving,) = pod(workloads("bare")["tts-lm"])["containers"]
    assert _parser().parse_args(before["args"]).build_only
    built, looked_for = (environment(it)["XDG_CACHE_HOME"] for it in (before, serving))
    assert built == looked_for
    assert {"name": "scratch", "mountPath": built} in before["volumeMounts"]
    assert "g++" in " ".join(rest for _, rest in last_stage("cpu"))


def compose(name: str) -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load((DEPLOY / name).read_text(encoding="utf-8"))
    return document


@pytest.mark.parametrize("service", SERVICES)
def test_compose_runs_every_service_as_the_cluster_does(service: str) -> None:
    it = compose("compose.yaml")["services"][service]
    config = load(CONFIGS[service], [], environ=it["environment"])
    assert it["command"] == ["serve", service]
    assert config.host == "0.0.0.0"
    assert it["image"] == f"voicemesh/cpu:{version('voicemesh')}"
    assert (it["read_only"], it["cap_drop"], it["init"]) == (True, ["ALL"], True)
    assert int(it["stop_grace_period"].rstrip("s")) > config.drain_deadline_s + 5
    assert it["healthcheck"]["test"][2:] == [
        "-m",
        "common.serving.probe",
        f"127.0.0.1:{config.port}",
        own_name(service),
    ]
    assert it["mem_limit"]
    assert it["cpus"]


def test_compose_shows_only_the_gateway_and_only_to_this_machine() -> None:
    services = compose("compose.yaml")["services"]
    published = {name: it["ports"] for name, it in services.items() if "ports" in it}
    config = GatewayConfig()
    assert published == {"gateway": [f"127.0.0.1:{port}:{port}" for port in (config.http_port, config.port)]}
    gateway = load(GatewayConfig, [], environ=services["gateway"]["environment"])
    for service in ("brain", "tts_lm", "codec"):
        assert getattr(gateway, f"{service}_address") == f"dns:///{service}:{CONFIGS[service]().port}"
    assert services["gateway"]["depends_on"].keys() == set(SERVICES) - {"gateway"}


def test_compose_with_gpus_changes_only_what_has_weights() -> None:
    services = compose("compose.gpu.yaml")["services"]
    assert services.keys() == {"brain", "tts_lm", "codec"}
    for service, it in services.items():
        own = {name: value for name, value in it["environment"].items() if name.startswith("VOICEMESH_")}
        load(CONFIGS[service], [], environ=own)
        assert it["image"] == f"voicemesh/cuda:{version('voicemesh')}"
