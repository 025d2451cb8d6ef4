"""What a caller of the gateway waits for: first byte, first playable, first audible, real-time factor, underruns.

Closed bursts: N answers at once, and the next N when all are over. Poisson arrivals: answers begin at random moments,
R a second, whatever still runs. Real-time streams: N listeners at once, packets of four frames, delivered by the
gateway on a playout clock (`paced`), which puts silence where speech is late: none may be needed. Times count from the
moment the text is written to the stream; the player (bench/playback.py) starts with `--prebuffer-ms` of sound and then
never waits. Every load runs once for each seed; texts, lengths and moments follow from it (bench/loads.py).

`--model DIR` and `--like SIZE` (random weights) start tts_lm, codec (one process with it on a GPU) and gateway here and
tell their steps, memory and prefixes beside; `--prefix-cache both` runs all with the prefixes kept and again with none.
`--gateways N` starts so many gateways over the same stages, and callers take turns among them. `--gateway` measures
those that run. Without any of them a gateway over toy stages (tests/fakes.py) is started, which answer at once or after
`--step-s` a frame: what then remains is the path itself. `hops` is that path alone: a letter into an open utterance and
its sound back, six hops, one letter at a time; `stop` is from a caller's stop to the end of the utterance.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import random
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import uvloop
from voicemesh.gateway.v1 import gateway_pb2, gateway_pb2_grpc
from voicemesh.stream.v1 import stream_pb2

from bench.loads import FRAME_RATE_HZ, SENTENCES, Line, arrivals, lines
from bench.playback import Heard, Packet, play
from bench.report import ROOT, Report, summarise
from bench.running import Between, Mesh, Page, real_mesh, toy_mesh
from common.status import error_of

RATE_HZ = 24000
LETTER = "c"  # one frame in the toy's count
LETTERS_PER_UTTERANCE = 100
STEADY_FRAMES = 4
TEXT = "It was a bright cold day in spring, and the clocks were striking."
STEP = "voicemesh_tts_lm_step_duration_seconds"
Stub: Any = gateway_pb2_grpc.SpeechServiceStub


@dataclass(frozen=True)
class Outcome:
    """One answer: what was heard, or why not."""

    heard: Heard | None
    reason: str
    silent_s: float = 0.0
    """Silence that a pacing gateway put where speech was late."""


async def answer(
    channel: grpc.aio.Channel, line: Line, arguments: argparse.Namespace, *, real_time: bool = False
) -> Outcome:
    """Ask for one answer and listen to its end. `real_time`: packets of four frames, as a player takes them."""
    call = Stub(channel).Synthesize()
    request = gateway_pb2.SynthesizeRequest(start=gateway_pb2.SynthesizeStart())
    request.start.speech.max_frames = line.max_frames
    request.start.speech.sampling.seed = line.seed
    if real_time:
        request.start.paced = True
        request.start.speech.packet_ramp.frames.append(STEADY_FRAMES)
    if arguments.voice:
        request.start.speech.voice.name = arguments.voice
    began_s, silent_s = time.perf_counter(), 0.0
    packets: list[Packet] = []
    try:
        await call.write(request)
        await call.write(gateway_pb2.SynthesizeRequest(text=line.text))
        await call.write(gateway_pb2.SynthesizeRequest(flush=stream_pb2.Flush()))
        await call.done_writing()
        reason = "LOST"
        while (response := await call.read()) is not grpc.aio.EOF:
            if response.WhichOneof("payload") == "audio":
                silent_s += response.audio.duration.ToNanoseconds() / 1e9 if not response.audio.frame_count else 0.0
                packets.append(Packet(time.perf_counter() - began_s, response.audio.payload))
            elif response.WhichOneof("payload") == "ended":
                reason = stream_pb2.FinishReason.Name(response.ended.reason).removeprefix("FINISH_REASON_")
                if response.ended.HasField("error"):
                    reason = f"{reason}_{error_of(response.ended.error).reason}"
    except grpc.aio.AioRpcError as error:
        reason = error.code().name
    is_whole = reason in ("COMPLETED", "LENGTH") and packets
    heard = play(packets, RATE_HZ, arguments.prebuffer_ms / 1000) if is_whole else None
    return Outcome(heard, reason, silent_s if real_time else 0.0)


Ask = Callable[[Line], Any]


async def burst(ask: Ask, said: Iterator[Line], size: int, rounds: int) -> list[Outcome]:
    """Rounds of `size` answers at once."""
    outcomes: list[Outcome] = []
    for _ in range(rounds):
        outcomes += await asyncio.gather(*(ask(next(said)) for _ in range(size)))
    return outcomes


async def poisson(ask: Ask, said: Iterator[Line], moments: Sequence[float]) -> list[Outcome]:
    """Answers that begin at those moments, whatever still runs."""
    answers: list[asyncio.Task[Outcome]] = []
    loop = asyncio.get_running_loop()
    began_s = loop.time()
    async with asyncio.TaskGroup() as group:
        for at_s in moments:
            await asyncio.sleep(max(0.0, began_s + at_s - loop.time()))
            answers.append(group.create_task(ask(next(said))))
    return [task.result() for task in answers]


async def streams(ask: Ask, count: int, seconds: float, seed: int) -> list[Outcome]:
    """So many listeners at once, each in real time for so long; they come within the first second."""
    draw, frames = random.Random(seed), STEADY_FRAMES * max(1, round(seconds * FRAME_RATE_HZ / STEADY_FRAMES))

    async def one(after_s: float) -> Outcome:
        await asyncio.sleep(after_s)
        return await ask(Line(SENTENCES[-1] * (frames // 20 + 1), frames, draw.getrandbits(32)))

    return list(await asyncio.gather(*(one(i / count) for i in range(count))))


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


def tell(report: Report, seeds: Sequence[Sequence[Outcome]], **where: Any) -> None:
    """The figures of one load, over all seeds. Answers that failed are counted, never left out in silence."""
    outcomes = [outcome for taken in seeds for outcome in taken]
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
        report.value("audio_s", sum(each.audio_s for each in heard), **where)
        if where["load"] == "streams":
            report.value("silence_s", sum(outcome.silent_s for outcome in outcomes), **where)
            clean = sum(o.heard is not None and not o.heard.underruns and not o.silent_s for o in outcomes)
            report.value("answers_without_a_gap", clean, **where)
        if len(seeds) > 1:
            firsts = [[o.heard.first_byte_s for o in taken if o.heard is not None] for taken in seeds]
            report.add("first_byte_p95_of_a_seed_s", [summarise(s)["p95"] for s in firsts if s], **where)
    report.value("answers", len(outcomes), **where)
    for reason in sorted({outcome.reason for outcome in outcomes}):
        report.value(f"ended_{reason.lower()}", sum(it.reason == reason for it in outcomes), **where)


async def pages(mesh: Mesh | None) -> dict[str, Page]:
    """The counters of every process, as they stand."""
    return {} if mesh is None else {name: await process.page() for name, process in mesh.processes.items()}


def processor(mesh: Mesh | None) -> dict[str, float]:
    """Processor time that every process has used."""
    return {} if mesh is None else {name: process.cpu_s() for name, process in mesh.processes.items()}


def tell_stages(report: Report, mesh: Mesh, before: dict[str, Page], after: dict[str, Page], **where: Any) -> None:
    """What the talker's steps took meanwhile, how its prefixes were found, what everyone's memory is."""
    talker = Between(before["tts_lm"], after["tts_lm"])
    count = talker.grown(f"{STEP}_count")
    if count:
        report.value("step_mean_s", talker.grown(f"{STEP}_sum") / count, **where)
        for share in (50, 95, 99):
            seconds = talker.quantile(STEP, share / 100)
            if seconds is not None:
                report.value(f"step_p{share}_s", seconds, **where)
        rows = talker.grown("voicemesh_tts_lm_step_batch_size_sum")
        report.value("rows_per_step", rows / count, **where)
    for found in ("true", "false"):
        name = "voicemesh_tts_lm_prefix_lookups_total"
        times = talker.grown(name, voicemesh_prefix_hit=found) + talker.grown(name, voicemesh_prefix_hit=found.title())
        report.value("prefix_hits" if found == "true" else "prefix_misses", times, **where)
    for name, process in mesh.processes.items():
        report.value(f"{name}_memory_mib", round(process.memory_mib()), **where)


async def measure_loads(
    report: Report, addresses: Sequence[str], mesh: Mesh | None, arguments: argparse.Namespace, **on: Any
) -> None:
    """Every load of the command line, for every seed. Each answer goes to the next gateway."""
    natural = bool(arguments.gateway or arguments.model or not arguments.like)
    async with AsyncExitStack() as open_channels:
        channels = [await open_channels.enter_async_context(grpc.aio.insecure_channel(each)) for each in addresses]
        channel, turns = channels[0], itertools.cycle(channels)

        async def ask(line: Line) -> Outcome:
            return await answer(next(turns), line, arguments)

        async def ask_in_real_time(line: Line) -> Outcome:
            return await answer(next(turns), line, arguments, real_time=True)

        def said(seed: int) -> Iterator[Line]:
            if arguments.text:
                while True:
                    yield Line(arguments.text, arguments.max_frames, seed)
            yield from lines(seed, ends_by_itself=natural, longest_frames=arguments.max_frames)

        warm = said(0)
        for _ in range(arguments.warm_up):
            await ask(next(warm))
        if mesh is not None and not arguments.model and not arguments.like and not arguments.step_s:
            await hops(channel, LETTERS_PER_UTTERANCE)
            report.add("hops_s", await hops(channel, arguments.letters), hops=6)
            report.add("stop_s", await stops(channel, arguments.stops))
        loads: list[dict[str, Any]] = [{"load": "burst", "at_once": size} for size in arguments.bursts]
        loads += [{"load": "poisson", "per_s": rate} for rate in arguments.rates]
        loads += [{"load": "streams", "streams": count} for count in arguments.streams]
        for where in loads:
            before, used_s = await pages(mesh), processor(mesh)
            taken: list[list[Outcome]] = []
            for seed in range(1, arguments.seeds + 1):
                if where["load"] == "streams":
                    taken.append(await streams(ask_in_real_time, where["streams"], arguments.seconds, seed))
                elif where["load"] == "burst":
                    taken.append(await burst(ask, said(seed), where["at_once"], arguments.rounds))
                else:
                    taken.append(await poisson(ask, said(seed), arrivals(seed, where["per_s"], arguments.seconds)))
            tell(report, taken, **where, **on)
            if mesh is not None:
                audio_s = sum(o.heard.audio_s for outcomes in taken for o in outcomes if o.heard is not None)
                for name, now_s in processor(mesh).items():
                    if audio_s:
                        report.value(f"{name}_cpu_s_per_audio_s", (now_s - used_s[name]) / audio_s, **where, **on)
                tell_stages(report, mesh, before, await pages(mesh), **where, **on)


def meshes(model: str, arguments: argparse.Namespace) -> list[tuple[dict[str, str], AbstractAsyncContextManager[Mesh]]]:
    """What to start, one after the other, and what the figures of each are called."""
    most = max([*arguments.bursts, *arguments.streams, arguments.slots])
    if not model:
        return [({}, toy_mesh(max(most, 256), arguments.step_s, arguments.gateways))]
    talker, codec = ["--device", arguments.device, "--dtype", arguments.dtype], ["--device", arguments.device]
    if arguments.threads:
        talker += ["--thread-count", str(arguments.threads)]
    processes = arguments.speech_processes or (1 if arguments.device.startswith("cuda") else 2)
    made: list[tuple[dict[str, str], AbstractAsyncContextManager[Mesh]]] = []
    for kept in {"on": ["on"], "off": ["off"], "both": ["on", "off"]}[arguments.prefix_cache]:
        flags = [*talker, *([] if kept == "on" else ["--prefix-positions", "0"])]
        starting = real_mesh(model, most, flags, codec, arguments.gateways, processes)
        made.append(({"prefix_cache": kept}, starting))
    return made


@asynccontextmanager
async def checkpoint(arguments: argparse.Namespace) -> AsyncIterator[str]:
    """The one that was named, a random one, or none."""
    if arguments.model:
        yield arguments.model
    elif arguments.like:
        from cli.checkpoint.random import write_random

        with tempfile.TemporaryDirectory() as scratch:
            yield str(write_random(Path(scratch), like=arguments.like, type="custom_voice", seed=0))
    else:
        yield ""


async def measure(arguments: argparse.Namespace) -> Report:
    """Everything that was asked for, one load after another."""
    report = Report("mesh", {key: value for key, value in vars(arguments).items() if key != "json"})
    if arguments.gateway:
        await measure_loads(report, arguments.gateway.split(","), None, arguments)
        return report
    async with checkpoint(arguments) as directory:
        for on, starting in meshes(directory, arguments):
            async with starting as mesh:
                await measure_loads(report, mesh.gateways, mesh, arguments, **on)
    return report


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print the table, write the report."""
    arguments = _arguments(argv)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        report = runner.run(measure(arguments))
    if arguments.json:
        print(json.dumps(report.document()))
    else:
        print(report.table())
        print(report.write())
    return 0


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="voicemesh bench mesh", description=(__doc__ or "").split("\n", 1)[0])
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--gateway", metavar="ADDRESS,…", help="those to measure; without it, some that are started")
    which.add_argument("--model", metavar="DIR", type=_from_root, help="over real stages with this checkpoint")
    which.add_argument("--like", choices=["tiny", "0.6B", "1.7B"], help="over real stages with random weights")
    parser.add_argument("--bursts", type=_integers, default=[1, 3, 6, 8, 32, 128], help="answers at once")
    parser.add_argument("--rounds", type=int, default=3, help="of each burst and seed")
    parser.add_argument("--rates", type=_numbers, default=[1.0, 10.0, 20.0, 30.0], help="arrivals a second")
    parser.add_argument("--streams", type=_integers, default=[], help="listeners at once in real time, for --seconds")
    parser.add_argument("--speech-processes", type=int, choices=(1, 2), help="default: one on a GPU")
    parser.add_argument("--gateways", type=int, default=1, help="gateway processes to start")
    parser.add_argument("--seconds", type=float, default=10.0, help="of each rate, of each stream, and seed")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--slots", type=int, default=32, help="of each real stage, at least the largest burst")
    parser.add_argument("--device", default="cpu", help="of both stages: cpu, cuda or cuda:N")
    parser.add_argument("--dtype", default="auto", help="of the talker")
    parser.add_argument("--threads", type=int, help="of the talker; absent: as it chooses")
    parser.add_argument("--prefix-cache", choices=["on", "off", "both"], default="on")
    parser.add_argument("--letters", type=int, default=2000, help="round trips of the path alone")
    parser.add_argument("--stops", type=int, default=200, help="of speech that runs as fast as the path can carry it")
    parser.add_argument("--step-s", type=float, default=0.0, help="what a frame takes the toy talker")
    parser.add_argument("--prebuffer-ms", type=float, default=100.0, help="sound that the player waits for")
    parser.add_argument("--text", help="what every answer says (default: drawn, see bench/loads.py)")
    parser.add_argument("--voice", help="who says it (default: the first)")
    parser.add_argument("--max-frames", type=int, default=0, help="longest answer")
    parser.add_argument("--warm-up", type=int, default=5, help="answers before anything is measured")
    parser.add_argument("--json", action="store_true", help="print the report instead of a table, and write no file")
    return parser.parse_args(argv)


def _from_root(path: str) -> str:
    """As the started processes find it, who run at the project's root; without what only this machine has."""
    return str(Path(path).resolve()).removeprefix(f"{ROOT}/")


def _integers(text: str) -> list[int]:
    return [int(part) for part in text.split(",") if part]


def _numbers(text: str) -> list[float]:
    return [float(part) for part in text.split(",") if part]


if __name__ == "__main__":
    sys.exit(main())
