"""What a caller of the gateway waits for: first byte, first playable, first audible, real-time factor, underruns.

Closed bursts: N answers at once, and the next N when all are over. Poisson arrivals: answers begin at random moments,
R a second, whatever still runs. Times count from the moment the text is written to the stream; the player
(bench/playback.py) starts with `--prebuffer-ms` of sound and then never waits. Without `--gateway` a gateway over toy
stages (tests/fakes.py) is started, which answer at once or after `--step-s` a frame: what then remains is the path
itself.
`hops` is that path alone: a letter into an open utterance and its sound back, six hops, one letter at a time; `stop`
is from a caller's stop to the end of the utterance.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import grpc
import uvloop
from voicemesh.gateway.v1 import gateway_pb2, gateway_pb2_grpc
from voicemesh.stream.v1 import stream_pb2

from bench.hop import processes
from bench.playback import Heard, Packet, play
from bench.report import Report

RATE_HZ = 24000
LETTER = "c"  # one frame in the toy's count
LETTERS_PER_UTTERANCE = 100
TEXT = "It was a bright cold day in spring, and the clocks were striking."
Stub: Any = gateway_pb2_grpc.SpeechServiceStub


@dataclass(frozen=True)
class Outcome:
    """One answer: what was heard, or why not."""

    heard: Heard | None
    reason: str


async def answer(channel: grpc.aio.Channel, arguments: argparse.Namespace) -> Outcome:
    """Ask for one answer and listen to its end."""
    call = Stub(channel).Synthesize()
    request = gateway_pb2.SynthesizeRequest(start=gateway_pb2.SynthesizeStart())
    request.start.speech.max_frames = arguments.max_frames
    if arguments.voice:
        request.start.speech.voice.name = arguments.voice
    began_s = time.perf_counter()
    packets: list[Packet] = []
    try:
        await call.write(request)
        await call.write(gateway_pb2.SynthesizeRequest(text=arguments.text))
        await call.write(gateway_pb2.SynthesizeRequest(flush=stream_pb2.Flush()))
        await call.done_writing()
        reason = "LOST"
        while (response := await call.read()) is not grpc.aio.EOF:
            if response.WhichOneof("payload") == "audio":
                packets.append(Packet(time.perf_counter() - began_s, response.audio.payload))
            elif response.WhichOneof("payload") == "ended":
                reason = stream_pb2.FinishReason.Name(response.ended.reason).removeprefix("FINISH_REASON_")
    except grpc.aio.AioRpcError as error:
        reason = error.code().name
    is_whole = reason in ("COMPLETED", "LENGTH") and packets
    return Outcome(play(packets, RATE_HZ, arguments.prebuffer_ms / 1000) if is_whole else None, reason)


async def burst(channel: grpc.aio.Channel, size: int, arguments: argparse.Namespace) -> list[Outcome]:
    """Rounds of `size` answers at once."""
    outcomes: list[Outcome] = []
    for _ in range(arguments.rounds):
        outcomes += await asyncio.gather(*(answer(channel, arguments) for _ in range(size)))
    return outcomes


async def poisson(channel: grpc.aio.Channel, rate: float, arguments: argparse.Namespace) -> list[Outcome]:
    """Answers that begin `rate` times a second on average, the same moments in every run."""
    draw = random.Random(1)
    answers: list[asyncio.Task[Outcome]] = []
    loop = asyncio.get_running_loop()
    async with asyncio.TaskGroup() as group:
        due = loop.time()
        end = due + arguments.seconds
        while (due := due + draw.expovariate(rate)) < end:
            await asyncio.sleep(max(0.0, due - loop.time()))
            answers.append(group.create_task(answer(channel, arguments)))
    return [task.result() for task in answers]


async def hops(channel: grpc.aio.Channel, count: int) -> list[float]:
    """A letter into an open utterance, its sound back."""
    times: list[float] = []
    while len(times) < count:
        call = Stub(channel).Synthesize()
        await call.write(gateway_pb2.SynthesizeRequest(start=gateway_pb2.SynthesizeStart()))
        assert (await call.read()).HasField("started")
        for _ in range(min(LETTERS_PER_UTTERANCE, count - len(times))):
            began_s = time.perf_counter()
            await call.write(gateway_pb2.SynthesizeRequest(text=LETTER))
            response = await call.read()
            times.append(time.perf_counter() - began_s)
            assert response.audio.frame_count == 1, response
        call.cancel()
    return times


async def stops(channel: grpc.aio.Channel, count: int) -> list[float]:
    """A `stop` into speech that runs, and its `ended`: behind it nothing more of that epoch comes."""
    times: list[float] = []
    call = Stub(channel).Synthesize()
    for _ in range(count):
        await call.write(gateway_pb2.SynthesizeRequest(start=gateway_pb2.SynthesizeStart()))
        await call.write(gateway_pb2.SynthesizeRequest(text=LETTER * 2000))  # more than anybody waits for
        while not (await call.read()).HasField("audio"):
            pass
        began_s = time.perf_counter()
        await call.write(gateway_pb2.SynthesizeRequest(stop=stream_pb2.Stop()))
        while not (await call.read()).HasField("ended"):
            pass
        times.append(time.perf_counter() - began_s)
    call.cancel()
    return times


def tell(report: Report, outcomes: Sequence[Outcome], **where: Any) -> None:
    """The figures of one load. Answers that failed are counted, never left out in silence."""
    heard = [outcome.heard for outcome in outcomes if outcome.heard is not None]
    if heard:
        report.add("first_byte_s", [each.first_byte_s for each in heard], **where)
        report.add("first_playable_s", [each.first_playable_s for each in heard], **where)
        audible = [each.first_audible_s for each in heard if each.first_audible_s is not None]
        if audible:
            report.add("first_audible_s", audible, **where)
        report.add("rtf", [each.rtf for each in heard], **where)
        report.add("missing_s", [each.missing_s for each in heard], **where)
        report.value("underruns", sum(each.underruns for each in heard), **where)
    report.value("answers", len(outcomes), **where)
    for reason in sorted({outcome.reason for outcome in outcomes}):
        report.value(f"ended_{reason.lower()}", sum(it.reason == reason for it in outcomes), **where)


@asynccontextmanager
async def gateway(arguments: argparse.Namespace) -> AsyncIterator[str]:
    """The address of the one to measure."""
    if arguments.gateway:
        yield arguments.gateway
        return
    most = str(max(max(arguments.bursts), 256))
    flags = ("--port", "0", "--no-metrics", "--log-level", "ERROR")
    fake = (*flags, "--slots", most, "--step-s", str(arguments.step_s))
    async with AsyncExitStack() as running:
        stages = processes(
            (("tests.fakes", "tts_lm", *fake), {}), (("tests.fakes", "codec", *flags, "--slots", most), {})
        )
        tts_lm, codec = await running.enter_async_context(stages)
        where = ("--tts-lm-address", tts_lm, "--codec-address", codec, "--no-http")
        (address,) = await running.enter_async_context(processes((("services.gateway", *flags, *where), {})))
        yield address


async def measure(arguments: argparse.Namespace) -> Report:
    """Everything that was asked for, one load after another."""
    report = Report("mesh", dict(vars(arguments)))
    async with gateway(arguments) as address, grpc.aio.insecure_channel(address) as channel:
        for _ in range(arguments.warm_up):
            await answer(channel, arguments)
        if not arguments.gateway and not arguments.step_s:
            await hops(channel, LETTERS_PER_UTTERANCE)
            report.add("hops_s", await hops(channel, arguments.letters), hops=6)
            report.add("stop_s", await stops(channel, arguments.stops))
        for size in arguments.bursts:
            tell(report, await burst(channel, size, arguments), load="burst", at_once=size)
        for rate in arguments.rates:
            tell(report, await poisson(channel, rate, arguments), load="poisson", per_s=rate)
    return report


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print the table, write the report."""
    parser = argparse.ArgumentParser(prog="voicemesh bench mesh", description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--gateway", metavar="ADDRESS", help="the one to measure; without it, one over toy stages")
    parser.add_argument("--bursts", type=_integers, default=[1, 10, 100], help="answers at once (default 1,10,100)")
    parser.add_argument("--rounds", type=int, default=10, help="of each burst")
    parser.add_argument("--rates", type=_numbers, default=[1.0, 10.0, 20.0], help="arrivals a second (default 1,10,20)")
    parser.add_argument("--seconds", type=float, default=10.0, help="of each rate")
    parser.add_argument("--letters", type=int, default=2000, help="round trips of the path alone")
    parser.add_argument("--stops", type=int, default=200, help="of speech that runs as fast as the path can carry it")
    parser.add_argument("--step-s", type=float, default=0.0, help="what a frame takes the toy talker")
    parser.add_argument("--prebuffer-ms", type=float, default=100.0, help="sound that the player waits for")
    parser.add_argument("--text", default=TEXT, help="what every answer says")
    parser.add_argument("--voice", help="who says it (default: the first)")
    parser.add_argument("--max-frames", type=int, default=0, help="longest answer (random weights know no end)")
    parser.add_argument("--warm-up", type=int, default=5, help="answers before anything is measured")
    parser.add_argument("--json", action="store_true", help="print the report instead of a table, and write no file")
    arguments = parser.parse_args(argv)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        report = runner.run(measure(arguments))
    if arguments.json:
        print(json.dumps(report.document()))
    else:
        print(report.table())
        print(report.write())
    return 0


def _integers(text: str) -> list[int]:
    return [int(part) for part in text.split(",") if part]


def _numbers(text: str) -> list[float]:
    return [float(part) for part in text.split(",") if part]


if __name__ == "__main__":
    sys.exit(main())
