"""`voicemesh serve all`, with the real services: READY lines, a killed service, a drained mesh, no orphans."""

import json
import signal
import sys

import grpc
import psutil
import pytest
import soundfile
from grpc_health.v1 import health_pb2, health_pb2_grpc

from cli.checkpoint.random import write_random
from tests.cli.commands import voicemesh
from tests.cli.supervised import children, gone, running

NAMES = {
    "gateway": "voicemesh.gateway.v1.SpeechService",
    "brain": "voicemesh.brain.v1.BrainService",
    "tts_lm": "voicemesh.tts_lm.v1.TtsLmService",
    "codec": "voicemesh.codec.v1.CodecService",
}
START_S = 60.0


@pytest.fixture(scope="module")
def mesh(tmp_path_factory):
    tiny = str(write_random(tmp_path_factory.mktemp("tiny")))
    with running([sys.executable, "-m", "cli", "serve", "all", "--ports", "free", "--model", tiny]) as supervisor:
        yield supervisor, supervisor.ready(4, START_S)


def is_serving(service, address):
    with grpc.insecure_channel(address) as channel:
        request = health_pb2.HealthCheckRequest(service=NAMES[service])
        answer = health_pb2_grpc.HealthStub(channel).Check(request, timeout=5, wait_for_ready=True)
    return answer.status == health_pb2.HealthCheckResponse.SERVING


@pytest.mark.timeout(120)
async def test_four_ready_services_speak_together(mesh, tmp_path):
    _, ready = mesh
    assert set(ready) == set(NAMES)
    assert all(is_serving(service, line["address"]) for service, line in ready.items())
    out = tmp_path / "a.wav"
    flags = ["--max-frames", "12", "--seed", "1", "--json", "--out", str(out)]
    said = await voicemesh("say", "Hello there.", *flags, "--gateway", ready["gateway"]["address"])
    assert said.code == 0, said.errors
    facts = json.loads(said.out)
    assert soundfile.info(out).frames == 1920 * facts["frames"]
    samples, _ = soundfile.read(out)
    assert 0.01 < samples.std() < 0.5  # noise, but neither silent nor clipped
    assert abs(samples).max() < 0.99


@pytest.mark.timeout(120)
@pytest.mark.fault
@pytest.mark.parametrize("service", NAMES)
def test_a_killed_service_is_ready_again_where_it_was(mesh, service):
    supervisor, ready = mesh
    (process,) = [p for p in children(supervisor.process.pid) if f"services.{service}" in p.cmdline()]
    process.kill()
    supervisor.until_said(f"{service} is READY again at {ready[service]['address']}", START_S)
    assert is_serving(service, ready[service]["address"])


@pytest.mark.timeout(120)
def test_the_mesh_ends_when_it_is_told_to_and_leaves_nobody(mesh):
    supervisor, ready = mesh
    pids = [process.pid for process in children(supervisor.process.pid)]
    assert len(pids) >= len(ready)
    assert supervisor.end(signal.SIGTERM, 30) == (0, b"")
    assert gone(pids, 0)
    assert not any(psutil.pid_exists(pid) for pid in pids)


@pytest.mark.timeout(120)
@pytest.mark.fault
def test_real_services_do_not_outlive_a_killed_supervisor(tmp_path):
    tiny = str(write_random(tmp_path))
    with running([sys.executable, "-m", "cli", "serve", "speech", "--ports", "free", "--model", tiny]) as supervisor:
        supervisor.ready(2, START_S)
        pids = [process.pid for process in children(supervisor.process.pid)]
        supervisor.process.kill()
        assert gone(pids)


@pytest.mark.timeout(120)
@pytest.mark.fault
def test_both_speech_stages_in_one_process_announce_drain_and_come_back_together(tmp_path):
    tiny = str(write_random(tmp_path))
    command = ["serve", "speech", "--speech-processes", "1", "--ports", "free", "--model", tiny]
    with running([sys.executable, "-m", "cli", *command]) as supervisor:
        ready = supervisor.ready(2, START_S)
        assert set(ready) == {"tts_lm", "codec"}
        (process,) = [p for p in children(supervisor.process.pid) if "cli.speech" in p.cmdline()]
        process.kill()
        for service, line in ready.items():
            supervisor.until_said(f"{service} is READY again at {line['address']}", START_S)
            assert is_serving(service, line["address"])
        assert supervisor.end(signal.SIGTERM, 30) == (0, b"")
