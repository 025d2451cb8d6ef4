"""`voicemesh serve`: what is told before anything starts, and real services behind it."""

import asyncio
import json
import os
import signal
import socket

import pytest

from cli import default_model
from cli.checkpoint.random import write_random
from cli.commands.serve import plan, processes, wanted_ports, welcome
from cli.errors import CommandError
from cli.ports import free_ports, is_free
from tests.cli.commands import started, voicemesh
from tests.fakes import speak


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return str(write_random(tmp_path_factory.mktemp("tiny")))


@pytest.fixture
def taken():
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


async def test_a_taken_port_is_named_before_anything_starts(taken, tiny, tmp_path):
    file = tmp_path / "mesh.yaml"
    file.write_text(f"codec: {{port: {taken}, metrics: false}}\n")
    done = await voicemesh("serve", "codec", "--model", tiny, "--config", str(file))
    assert (done.code, done.out) == (1, b"")
    assert f"port {taken} on 127.0.0.1 (codec) is taken" in done.errors


async def test_a_taken_metrics_port_is_named_too(taken, tiny, tmp_path):
    file = tmp_path / "mesh.toml"
    file.write_text(f"[codec]\nport = {free_ports('127.0.0.1', 1)[0]}\nmetrics_port = {taken}\n")
    done = await voicemesh("serve", "speech", "--model", tiny, "--config", str(file))
    assert done.code == 1
    assert f"port {taken} on 127.0.0.1 (metrics of codec)" in done.errors


@pytest.mark.parametrize(
    ("text", "words"),
    [("codec: {prot: 1}", "Did you mean port?"), ("codec: {port: 70000}", "port"), ("}", "neither YAML nor TOML")],
)
async def test_a_wrong_configuration_is_wrong_use(tiny, tmp_path, text, words):
    file = tmp_path / "mesh.yaml"
    file.write_text(text)
    done = await voicemesh("serve", "codec", "--model", tiny, "--config", str(file))
    assert (done.code, done.out) == (2, b"")
    assert words in done.errors


async def test_an_unknown_dtype_is_wrong_use(tiny):
    done = await voicemesh("serve", "tts_lm", "--model", tiny, "--dtype", "float7")
    assert done.code == 2
    assert "dtype" in done.errors


async def test_one_service_is_served_by_the_process_itself(tiny, tmp_path):
    async with started("serve", "codec", "--model", tiny, "--ports", "free") as process:
        ready = json.loads(await asyncio.wait_for(process.stdout.readline(), 60))
        assert ready["service"] == "codec"
        frames = [[code % 64 for code in frame] for frame in speak("Hi.")]
        lines = "".join(json.dumps({"codes": frame}) + "\n" for frame in frames).encode()
        flags = ["--out", str(tmp_path / "a.wav"), "--json", "--codec", ready["address"]]
        done = await voicemesh("decode", "-", *flags, stdin=lines)
        assert done.code == 0, done.errors
        facts = json.loads(done.out)
        assert facts["samples"] == 1920 * len(frames)
        process.send_signal(signal.SIGTERM)
        rest, _ = await asyncio.wait_for(process.communicate(), 30)
        assert (process.returncode, rest) == (0, b"")


def test_flags_stand_over_the_environment_and_the_environment_over_the_file(tmp_path, monkeypatch):
    file = tmp_path / "mesh.yaml"
    file.write_text("codec: {port: 1001, host: 127.0.0.2, slot_count: 3}")
    monkeypatch.setenv("VOICEMESH_CODEC_PORT", "1002")
    monkeypatch.setenv("VOICEMESH_CODEC_HOST", "127.0.0.3")
    config = plan("codec", ["--config", str(file), "--port", "1003"]).config
    assert (config.port, config.host, config.slot_count) == (1003, "127.0.0.3", 3)
    assert [(wanted.purpose, wanted.port) for wanted in wanted_ports(plan("codec", ["--port", "1003"]))] == [
        ("codec", 1003),
        ("metrics of codec", 2003),
    ]
    gateway = {wanted.purpose: wanted.port for wanted in wanted_ports(plan("gateway", ["--http-port", "1004"]))}
    assert gateway == {"gateway": 50050, "metrics of gateway": 51050, "HTTP of gateway": 1004}
    assert len(wanted_ports(plan("gateway", ["--no-http", "--no-metrics"]))) == 1


@pytest.mark.parametrize(
    ("devices", "wanted", "sizes"),
    [
        (("cpu", "cpu"), None, [1, 1, 1]),
        (("cuda", "cuda:0"), None, [2, 1]),
        (("cuda", "cpu"), None, [1, 1, 1]),
        (("cuda", "cuda"), 2, [1, 1, 1]),
        (("cpu", "cpu"), 1, [2, 1]),
    ],
)
def test_talker_and_codec_share_a_process_on_a_gpu_and_where_asked(devices, wanted, sizes):
    talker, codec = (
        plan(name, ["--device", device]) for name, device in zip(("tts_lm", "codec"), devices, strict=True)
    )
    assert [len(group) for group in processes([plan("gateway", []), talker, codec], wanted)] == sizes


def test_the_welcome_names_the_address_only_where_it_is_not_the_default():
    default = {"VOICEMESH_GATEWAY_ADDRESS": "127.0.0.1:50050", "VOICEMESH_TTS_LM_ADDRESS": "127.0.0.1:7"}
    assert welcome(default).endswith("voicemesh say 'Hello there.' --out hello.wav")
    assert welcome({**default, "VOICEMESH_BRAIN_ADDRESS": "127.0.0.1:50051"}).endswith("voicemesh chat")
    assert welcome({"VOICEMESH_GATEWAY_ADDRESS": "127.0.0.1:7"}).endswith("hello.wav --gateway 127.0.0.1:7")
    assert welcome({"VOICEMESH_TTS_LM_ADDRESS": "127.0.0.1:7"}).endswith("codes 'Hello there.' --tts-lm 127.0.0.1:7")


def test_a_port_is_free_until_somebody_listens(taken):
    assert not is_free("127.0.0.1", taken)
    assert not is_free("203.0.113.1", 5000)  # not this machine's address
    ports = free_ports("127.0.0.1", 8)
    assert len(set(ports)) == 8
    assert all(is_free("127.0.0.1", port) for port in ports)


def test_without_a_model_mini_is_served_and_else_noise_that_says_so(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    directory, notice = default_model.default_model(tmp_path / "absent")
    assert directory.is_relative_to(tmp_path / "cache/voicemesh")
    assert (directory / "model.safetensors").exists()
    assert "noise" in notice
    mini = write_random(tmp_path / "mini")
    assert default_model.default_model(mini) == (mini, None)


def test_a_cache_that_cannot_be_written_is_a_sentence(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(CommandError, match="cannot be written"):
        default_model.default_model(tmp_path / "absent")
    assert os.listdir(tmp_path) == ["file"]


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """The hub's cache with one model in it, and no hub to reach."""
    repository = tmp_path / "hub/models--Owner--Tiny"
    write_random(repository / "snapshots/0123456789abcdef")
    (repository / "refs").mkdir()
    (repository / "refs/main").write_text("0123456789abcdef")
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    return repository


@pytest.mark.timeout(60)
async def test_a_model_of_the_hub_is_served_by_both_stages(hub):
    async with started("serve", "speech", "--model", "Owner/Tiny", "--ports", "free") as process:
        lines = [json.loads(await asyncio.wait_for(process.stdout.readline(), 50)) for _ in range(2)]
        ready = {line["service"]: line["address"] for line in lines}
        assert set(ready) == {"tts_lm", "codec"}
        voices = await voicemesh("voices", "--json", "--tts-lm", ready["tts_lm"])
        assert json.loads(voices.out)["model"].endswith("Tiny")
        process.send_signal(signal.SIGTERM)
        assert await process.wait() == 0


@pytest.mark.parametrize(
    ("model", "code", "words"),
    [
        ("Owner/Absent", 1, "Owner/Absent is not in the hub's cache here and cannot be fetched"),
        ("./absent", 2, "there is no directory './absent'"),
        ("absent", 2, "there is no directory 'absent'"),
    ],
)
async def test_a_model_that_is_nowhere_is_a_sentence(hub, model, code, words):
    done = await voicemesh("serve", "codec", "--model", model, "--ports", "free")
    assert (done.code, done.out) == (code, b"")
    assert words in done.errors
