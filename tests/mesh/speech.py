"""Speech over real processes: talkers, codecs and a gateway, started together, killed one by one."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

import grpc
import psutil
from voicemesh.brain.v1 import brain_pb2, brain_pb2_grpc
from voicemesh.codec.v1 import codec_pb2, codec_pb2_grpc
from voicemesh.tts_lm.v1 import tts_lm_pb2, tts_lm_pb2_grpc

from tests.mesh.processes import end, read_ready_lines, start

BrainStub: Any = brain_pb2_grpc.BrainServiceStub
TalkerStub: Any = tts_lm_pb2_grpc.TtsLmServiceStub
CodecStub: Any = codec_pb2_grpc.CodecServiceStub
START_S = 90.0  # importing torch on a busy machine


@dataclass
class Replica:
    """One process of a stage."""

    process: subprocess.Popen[bytes]
    address: str
    http: str = ""

    def kill(self) -> None:
        """kill -9."""
        self.process.kill()
        self.process.wait(5)


@dataclass
class SpeechMesh:
    """A gateway and the replicas below it."""

    gateway: Replica
    talkers: list[Replica]
    codecs: list[Replica]
    brains: list[Replica]

    def gateway_memory_bytes(self) -> int:
        """What the gateway's process holds in memory."""
        return int(psutil.Process(self.gateway.process.pid).memory_info().rss)


@contextmanager
def speech_mesh(
    talkers: Sequence[Sequence[str]],
    codecs: Sequence[Sequence[str]],
    *gateway_flags: str,
    brains: Sequence[Sequence[str]] = (),
) -> Iterator[SpeechMesh]:
    """`talkers`, `codecs` and `brains` hold the arguments of each process, without its port."""
    running: list[subprocess.Popen[bytes]] = []
    try:
        common = ("--port", "0", "--no-metrics", "--log-level", "ERROR")
        running += [start([*arguments, *common]) for arguments in (*talkers, *codecs, *brains)]
        ready = [next(iter(read_ready_lines(process, 1, START_S).values()))["address"] for process in running]
        replicas = [Replica(process, address) for process, address in zip(running, ready, strict=True)]
        below, rest = replicas[: len(talkers)], replicas[len(talkers) :]
        beside, above = rest[: len(codecs)], rest[len(codecs) :]
        addresses = [
            *("--tts-lm-address", ",".join(replica.address for replica in below)),
            *("--codec-address", ",".join(replica.address for replica in beside)),
            *(("--brain-address", ",".join(replica.address for replica in above)) if above else ()),
        ]
        running.append(start(["-m", "services.gateway", *common, "--no-http", *addresses, *gateway_flags]))
        line = read_ready_lines(running[-1], 1, START_S)["gateway"]
        yield SpeechMesh(Replica(running[-1], line["address"], line.get("http", "")), below, beside, above)
    finally:
        for process in reversed(running):
            end(process)
            assert process.stdout is not None
            process.stdout.close()


async def busy(replicas: list[Replica]) -> Replica:
    """The one replica that speaks, once whoever spoke before has let go of its slot."""
    while True:
        found = [replica for replica in replicas if replica.process.poll() is None and await _speaks(replica)]
        if len(found) == 1:
            return found[0]


async def _speaks(replica: Replica) -> bool:
    async with grpc.aio.insecure_channel(replica.address) as channel:
        stage = [str(argument) for argument in cast(list[str], replica.process.args)]
        if any("brain" in argument for argument in stage):
            info = await BrainStub(channel).GetBrain(brain_pb2.GetBrainRequest())
        elif any("tts_lm" in argument for argument in stage):
            info = await TalkerStub(channel).GetModel(tts_lm_pb2.GetModelRequest())
        else:
            info = await CodecStub(channel).GetCodec(codec_pb2.GetCodecRequest())
    return bool(info.free_slot_count < info.slot_count)
