"""What a hop costs: one message from a gateway's place to a stage and back, alone and with 200 streams.

This process stands where the gateway stands; the stages are real processes with toy engines (tests/fakes.py) that
answer at once. The same exchange goes to `bare` (gRPC alone), `serving` (the same handler behind `common.serving`),
`codec` (the real edge and the toy codec) and `codec, silent` (the same with OTEL_SDK_DISABLED), so that the differences
are what each layer costs. `mesh` is four hops: a letter to tts_lm, its frame back and on to codec, its sound back. All
servers run side by side and take turns, so that they meet the same machine. A time is from before a message is written
until its answer was read.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, ClassVar

import grpc
import uvloop
from voicemesh.codec.v1 import codec_pb2, codec_pb2_grpc
from voicemesh.stream.v1 import stream_pb2
from voicemesh.tts_lm.v1 import tts_lm_pb2, tts_lm_pb2_grpc

from bench.report import ROOT, Report, summarise
from common.config import ServiceConfig
from common.serving import Server
from common.telemetry import Telemetry

FRAME = (1, 0, 99, 0, 0, *range(11))
LETTER = "c"  # one frame in the toy's count
SOUND_BYTES = 3840
FRAME_RATE_HZ = 12.5
CodecStub: Any = codec_pb2_grpc.CodecServiceStub
TtsLmStub: Any = tts_lm_pb2_grpc.TtsLmServiceStub


class CodecHop:
    """One stream to codec: frame out, sound in."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._call = CodecStub(channel).Decode()
        self._count = 0

    async def open(self) -> None:
        await self._call.write(codec_pb2.DecodeRequest(start=codec_pb2.DecodeStart()))
        assert (await self._call.read()).HasField("started")

    async def exchange(self, codes: Sequence[int] = FRAME) -> None:
        frames = codec_pb2.CodecFrames(first_frame_index=self._count, frame_count=1, codes=codes)
        self._count += 1
        await self._call.write(codec_pb2.DecodeRequest(frames=frames))
        answer = await self._call.read()
        assert len(answer.audio.payload) == SOUND_BYTES, answer

    async def close(self) -> None:
        await self._call.write(codec_pb2.DecodeRequest(flush=stream_pb2.Flush()))
        await self._call.done_writing()
        while (answer := await self._call.read()) is not grpc.aio.EOF:
            assert answer.HasField("ended"), answer


class MeshHop:
    """One stream to each speech stage: letter out, frame in; frame out, sound in."""

    def __init__(self, tts_lm: grpc.aio.Channel, codec: grpc.aio.Channel) -> None:
        self._call = TtsLmStub(tts_lm).Generate()
        self._codec = CodecHop(codec)

    async def open(self) -> None:
        await self._call.write(tts_lm_pb2.GenerateRequest(start=tts_lm_pb2.GenerateStart()))
        assert (await self._call.read()).HasField("started")
        await self._codec.open()

    async def exchange(self) -> None:
        await self._call.write(tts_lm_pb2.GenerateRequest(text=tts_lm_pb2.TextDelta(text=LETTER)))
        answer = await self._call.read()
        assert answer.frames.frame_count == 1, answer
        await self._codec.exchange(answer.frames.codes)

    async def close(self) -> None:
        self._call.cancel()
        await self._codec.close()


Hop = CodecHop | MeshHop
Open = Callable[[], Hop]


async def back_to_back(hops: Sequence[Hop], count: int) -> list[float]:
    """Each stream sends its next message when the last was answered: the machine is as busy as it can be."""

    async def run(hop: Hop) -> list[float]:
        return [await timed(hop) for _ in range(count)]

    return await together([run(hop) for hop in hops])


async def paced(hops: Sequence[Hop], count: int) -> list[float]:
    """Each stream sends at the rate of speech, its moments spread evenly among those of the others."""
    loop = asyncio.get_running_loop()
    began = loop.time()

    async def run(hop: Hop, place: int) -> list[float]:
        times = []
        for turn in range(count):
            due = began + (turn + place / len(hops)) / FRAME_RATE_HZ
            await asyncio.sleep(max(0.0, due - loop.time()))
            times.append(await timed(hop))
        return times

    return await together([run(hop, place) for place, hop in enumerate(hops)])


async def timed(hop: Hop) -> float:
    began = time.perf_counter()
    await hop.exchange()
    return time.perf_counter() - began


async def together(runs: Sequence[Awaitable[list[float]]]) -> list[float]:
    return [sample for samples in await asyncio.gather(*runs) for sample in samples]


@asynccontextmanager
async def opened(make: Open, streams: int) -> AsyncIterator[list[Hop]]:
    """That many streams, begun and in the end finished."""
    hops = [make() for _ in range(streams)]
    for hop in hops:
        await hop.open()
    yield hops
    for hop in hops:
        await hop.close()


@asynccontextmanager
async def processes(*commands: tuple[tuple[str, ...], dict[str, str]]) -> AsyncIterator[list[str]]:
    """A process for each module with its flags and environment, all READY: their addresses."""
    paths = os.pathsep.join([str(ROOT), str(ROOT / "gen")])
    children = []
    try:
        for command, environment in commands:
            children.append(
                await asyncio.create_subprocess_exec(
                    sys.executable,
                    *("-m", *command),
                    stdout=asyncio.subprocess.PIPE,
                    stderr=asyncio.subprocess.DEVNULL,
                    cwd=ROOT,
                    env={**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1", **environment},
                )
            )
        lines = [await child.stdout.readline() for child in children if child.stdout is not None]
        yield [json.loads(line)["address"] for line in lines]
    finally:
        for child in children:
            child.terminate()
        for child in children:
            await child.wait()


async def measure(arguments: argparse.Namespace) -> Report:
    """All servers, all loads, in turns."""
    fake = ("--port", "0", "--slots", str(max(arguments.streams) + 8), "--log-level", "ERROR")
    commands: tuple[tuple[tuple[str, ...], dict[str, str]], ...] = (
        (("bench.hop", "--serve", "bare"), {}),
        (("bench.hop", "--serve", "serving"), {}),
        (("tests.fakes", "codec", *fake), {}),
        (("tests.fakes", "codec", *fake), {"OTEL_SDK_DISABLED": "true"}),
        (("tests.fakes", "tts_lm", *fake), {}),
    )
    async with AsyncExitStack() as running:
        # All children before the first channel: grpc does not like to be forked.
        addresses = await running.enter_async_context(processes(*commands))
        channels = [await running.enter_async_context(grpc.aio.insecure_channel(address)) for address in addresses]
        bare, serving, codec, silent, tts_lm = channels
        servers: dict[str, Open] = {
            "bare": lambda: CodecHop(bare),
            "serving": lambda: CodecHop(serving),
            "codec": lambda: CodecHop(codec),
            "codec, silent": lambda: CodecHop(silent),
            "mesh": lambda: MeshHop(tts_lm, codec),
        }
        report = Report("hop", {key: value for key, value in vars(arguments).items() if key != "serve"})
        for streams in arguments.streams:
            await measure_streams(report, servers, streams, arguments)
    return report


async def measure_streams(
    report: Report, servers: dict[str, Open], streams: int, arguments: argparse.Namespace
) -> None:
    """One number of streams at every server, round by round."""
    loads = {
        "back to back": (back_to_back, max(1, arguments.messages // streams // arguments.rounds)),
        "paced": (paced, max(1, round(arguments.seconds * FRAME_RATE_HZ / arguments.rounds))),
    }
    for pace, (load, count) in loads.items():
        rounds: dict[str, list[list[float]]] = {name: [] for name in servers}
        for _ in range(arguments.rounds):
            for name, make in servers.items():
                async with opened(make, streams) as hops:
                    await back_to_back(hops, max(1, arguments.warm_up // streams))
                    rounds[name].append(await load(hops, count))
        for name, taken in rounds.items():
            where = {"server": name, "hops": 4 if name == "mesh" else 2, "streams": streams, "pace": pace}
            report.add("round_trip_s", [sample for samples in taken for sample in samples], **where)
            # On a machine that others use too, the middle round tells more of us than the worst one.
            report.add("p95_of_a_round_s", [summarise(samples)["p95"] for samples in taken], **where)


class EchoConfig(ServiceConfig):
    """Answers every message with as many bytes, and nothing else."""

    service: ClassVar[str] = "codec"


async def serve_echo(kind: str) -> None:
    """A server that answers every message at once: `bare` gRPC, or behind our `serving`."""
    sound = codec_pb2.DecodeResponse(
        session_id="0" * 32, audio=codec_pb2.AudioChunk(sample_count=1920, payload=bytes(SOUND_BYTES), frame_count=1)
    )

    async def decode(requests: AsyncIterator[Any], context: Any) -> AsyncIterator[codec_pb2.DecodeResponse]:
        async for request in requests:
            kind = request.WhichOneof("payload")
            if kind == "frames":
                yield sound
            elif kind == "start":
                yield codec_pb2.DecodeResponse(started=codec_pb2.DecodeStarted())
            else:
                yield codec_pb2.DecodeResponse(ended=stream_pb2.Ended())

    servicer = codec_pb2_grpc.CodecServiceServicer()
    vars(servicer)["Decode"] = decode
    add: Any = codec_pb2_grpc.add_CodecServiceServicer_to_server
    if kind == "serving":
        ours = Server(EchoConfig(), Telemetry.open(EchoConfig().telemetry))
        ours.add(add, servicer, "voicemesh.codec.v1.CodecService")
        await ours.start()
        await ours.set_ready(True)
        print(json.dumps({"address": ours.address}), flush=True)
        await asyncio.Event().wait()
    server = grpc.aio.server()
    add(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(json.dumps({"address": f"127.0.0.1:{port}"}), flush=True)
    await server.wait_for_termination()


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print the table, write the report."""
    parser = argparse.ArgumentParser(prog="voicemesh bench hop", description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument(
        "--streams", type=_numbers, default=[1, 200], help="how many at once, with commas (default 1,200)"
    )
    parser.add_argument("--messages", type=int, default=10_000, help="per server back to back, over all streams")
    parser.add_argument("--seconds", type=float, default=20.0, help="per server at the rate of speech")
    parser.add_argument("--rounds", type=int, default=10, help="turns that the servers take")
    parser.add_argument("--warm-up", type=int, default=200, help="messages before each round, over all streams")
    parser.add_argument("--json", action="store_true", help="print the report instead of a table, and write no file")
    parser.add_argument("--serve", choices=("bare", "serving"), help=argparse.SUPPRESS)
    arguments = parser.parse_args(argv)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        if arguments.serve:
            runner.run(serve_echo(arguments.serve))
        report = runner.run(measure(arguments))
    if arguments.json:
        print(json.dumps(report.document()))
    else:
        print(report.table())
        print(report.write())
    return 0


def _numbers(text: str) -> list[int]:
    return [int(part) for part in text.split(",")]


if __name__ == "__main__":
    sys.exit(main())
