"""The rollout drill without a cluster: two talkers and two codecs behind nginx, each stage replaced
under load: one replica is told to go (SIGTERM: it drains), the other is killed."""

from __future__ import annotations

import asyncio
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass

import grpc
import pytest

from common.stream import FinishReason
from tests.fakes import speak, tone
from tests.gateway.caller import Caller, dialled, opened
from tests.mesh.processes import end, read_ready_lines, start
from tests.mesh.proxy import proxied
from tests.mesh.speech import START_S, Replica

pytestmark = [pytest.mark.fault, pytest.mark.timeout(120)]
STAGES = ("tts_lm", "codec")
SPEAKERS = 6
TEXT = "Whoever speaks goes on speaking, whatever is replaced below."
COMMON = ("--no-metrics", "--log-level", "ERROR")


def launched(stage: str, port: str = "0") -> subprocess.Popen[bytes]:
    return start(["-m", "tests.fakes", stage, "--step-s", "0.01", "--slots", "16", "--port", port, *COMMON])


def ready(process: subprocess.Popen[bytes]) -> Replica:
    (line,) = read_ready_lines(process, 1, START_S).values()
    return Replica(process, line["address"])


@dataclass
class Cluster:
    """Two replicas of each stage behind a proxy, and a gateway that knows the proxy alone."""

    gateway: str
    replicas: dict[str, list[Replica]]
    running: list[subprocess.Popen[bytes]]

    async def replace(self, stage: str, how: signal.Signals) -> int:
        """Take the first replica away and put another in its place; the exit code of the old one."""
        old = self.replicas[stage].pop(0)
        old.process.send_signal(how)
        code = await asyncio.to_thread(old.process.wait, 60)
        closed(old.process)
        process = launched(stage, old.address.rpartition(":")[2])
        self.running.append(process)  # before anything can go wrong with it
        self.replicas[stage].append(await asyncio.to_thread(ready, process))
        return code


def closed(process: subprocess.Popen[bytes]) -> None:
    end(process)
    assert process.stdout is not None
    process.stdout.close()


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    running = {stage: [launched(stage), launched(stage)] for stage in STAGES}
    made = Cluster("", {}, [process for processes in running.values() for process in processes])
    gateway = None
    try:
        made.replicas = {stage: [ready(process) for process in processes] for stage, processes in running.items()}
        pools = {stage: [replica.address for replica in replicas] for stage, replicas in made.replicas.items()}
        with proxied(tmp_path_factory.mktemp("nginx"), pools) as fronts:
            where = [part for stage in STAGES for part in (f"--{stage.replace('_', '-')}-address", fronts[stage])]
            # nginx leaves out for a second who refused it once: both, when one is killed as soon as the other is up.
            patience = ("--connect-timeout-s", "20", "--resume-timeout-s", "30")
            gateway = start(["-m", "services.gateway", "--port", "0", "--no-http", *COMMON, *where, *patience])
            made.gateway = ready(gateway).address
            yield made
            closed(gateway)
    finally:
        for process in (*made.running, *([gateway] if gateway else [])):
            closed(process)


class Speaker:
    """One person's session: utterance after utterance until told that it is enough, every sample checked."""

    def __init__(self, channel: grpc.aio.Channel, seed: int) -> None:
        self._caller: Caller = opened(channel)
        self._seed = seed
        self.utterances = 0
        self.heard = asyncio.Event()

    async def speak_until(self, enough: asyncio.Event) -> None:
        expected = tone(speak(TEXT, self._seed))[0].tobytes()
        while True:
            is_last = enough.is_set()
            await self._caller.start(seed=self._seed)
            await self._caller.text(TEXT[:20])
            await self._caller.heard(3)
            self.heard.set()
            await self._caller.text(TEXT[20:])
            await self._caller.flush()
            await self._caller.to_end()
            assert self._caller.reason is FinishReason.COMPLETED, self._caller.ended
            assert self._caller.pcm == expected
            self.utterances += 1
            if is_last:
                return


@pytest.mark.parametrize("stage", STAGES)
async def test_replicas_are_replaced_under_load_and_nobody_hears_more_than_a_pause(
    cluster: Cluster, stage: str
) -> None:
    enough = asyncio.Event()
    async with dialled(cluster.gateway) as channel, asyncio.TaskGroup() as group:
        speakers = [Speaker(channel, seed) for seed in range(SPEAKERS)]
        for speaker in speakers:
            group.create_task(speaker.speak_until(enough))
        await asyncio.gather(*(speaker.heard.wait() for speaker in speakers))
        drained = await cluster.replace(stage, signal.SIGTERM)
        before = [speaker.utterances for speaker in speakers]
        killed = await cluster.replace(stage, signal.SIGKILL)
        enough.set()
    assert (drained, killed) == (0, -signal.SIGKILL)
    # The last utterance of each began when both replicas were new ones.
    assert all(speaker.utterances > count for speaker, count in zip(speakers, before, strict=True))
