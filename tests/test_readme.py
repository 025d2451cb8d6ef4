"""The README's calls, run against a mesh started as the README says. `buf curl` stands in for grpcurl."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
import wave
from pathlib import Path

import pytest

from tests.mesh.processes import running_mesh

ROOT = Path(__file__).resolve().parent.parent
BUF = Path(sys.executable).with_name("buf")
READMES = [ROOT / "README.md", ROOT / "README.zh-CN.md"]
CALL = re.compile(r"^(grpcurl .*?)\s*# → (.*)$", re.MULTILINE)
FETCH = re.compile(r"^(curl .*?)\s*# → (.*)$", re.MULTILINE)


def calls(readme: Path) -> list[tuple[str, list[str]]]:
    """Every grpcurl line of a README with the words that its answer must hold."""
    return [(command, words.split()) for command, words in CALL.findall(readme.read_text())]


def as_buf_curl(command: str, addresses: dict[str, str]) -> list[str]:
    """The same call for `buf curl`, with default ports replaced by those of the running mesh."""
    words = shlex.split(command)[1:]
    words.remove("-plaintext")
    data: list[str] = []
    if words[0] == "-d":
        data, words = ["-d", words[1]], words[2:]
    address, target = words
    curl = [str(BUF), "curl", "--protocol", "grpc", "--http2-prior-knowledge"]
    if target == "list":
        return [*curl, "--list-services", f"http://{addresses[address]}"]
    return [*curl, *data, f"http://{addresses[address]}/{target}"]


@pytest.fixture(scope="module")
def mesh():
    with running_mesh() as mesh:
        yield mesh


@pytest.fixture(scope="module")
def addresses(mesh):
    ports = {"gateway": 50050, "brain": 50051, "tts_lm": 50052, "codec": 50053}
    return {f"127.0.0.1:{port}": mesh.address(name) for name, port in ports.items()}


@pytest.mark.timeout(120)
@pytest.mark.parametrize(("command", "words"), [c for readme in READMES for c in calls(readme)])
def test_each_call_of_the_readme_answers_what_it_promises(command, words, addresses):
    done = subprocess.run(as_buf_curl(command, addresses), capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    missing = [word for word in words if word not in done.stdout]
    assert not missing, f"{missing} not in:\n{done.stdout[-2000:]}"


@pytest.mark.timeout(120)
def test_the_curl_of_the_readme_writes_a_file_that_begins_as_promised(mesh, tmp_path):
    ((command, begin),) = FETCH.findall((ROOT / "README.md").read_text())
    words = shlex.split(command.replace("http://127.0.0.1:8080", mesh.ready["gateway"]["http"]))
    subprocess.run([*words, "--fail"], cwd=tmp_path, timeout=60, check=True)
    assert (tmp_path / "hello.wav").read_bytes().startswith(begin.encode())


@pytest.mark.timeout(120)
def test_the_say_of_the_readme_writes_sound(mesh, tmp_path):
    (command,) = re.findall(r"^\.venv/bin/voicemesh (say .*)$", (ROOT / "README.md").read_text(), re.MULTILINE)
    words = [*shlex.split(command, comments=True), "--gateway", mesh.address("gateway")]
    subprocess.run([Path(sys.executable).with_name("voicemesh"), *words], cwd=tmp_path, timeout=60, check=True)
    with wave.open(str(tmp_path / "hello.wav")) as sound:
        assert sound.getframerate() == 24_000
        assert sound.getnframes() > 0


def test_every_grpcurl_line_says_what_it_answers():
    for readme in READMES:
        lines = [line for line in readme.read_text().splitlines() if line.startswith("grpcurl ")]
        assert lines, readme
        assert len(lines) == len(calls(readme)), f"a grpcurl line of {readme.name} promises nothing"
