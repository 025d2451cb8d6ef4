"""Conversations with everything below them: question to first sound, interruption to silence, by keyboard and by voice.

    voicemesh bench conversation                       # starts the four services (mini, offline brain) for itself
    voicemesh bench conversation --gateway 127.0.0.1:50050

Clock ends, at the client, over gRPC on loopback: a question is sent → the first packet of sound is here; `interrupt` is
sent → the last packet of that answer was here (0: none came after it); the last loud sample of a spoken question is
sent → first packet; the first loud sample of a voice over an answer is sent → the last packet of that answer. What the
gateway itself says of each turn (`turn_measured`) stands beside it, step by step. Packets are paced: 20 ms each.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import soundfile
from voicemesh.gateway.v1 import gateway_pb2, gateway_pb2_grpc
from voicemesh.stream.v1 import stream_pb2

from bench.report import ROOT, Report

SPEECH = ROOT / "tests" / "brain" / "speech"
HEARD_HZ = 16000
BLOCK = 320
LOUD = 600
QUESTIONS = ("hello", "what is two plus three", "spell cat", "what time is it")
STORY = "tell me a long story"
SPOKEN = "sum"
Stub: Any = gateway_pb2_grpc.ConversationServiceStub
Ask = gateway_pb2.ConverseRequest


class Caller:
    """One conversation; what comes is kept with the time at which it came."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self.call = Stub(channel).Converse()
        self.packets: dict[int, list[float]] = {}
        self.ended: dict[int, float] = {}
        self.milestones: list[dict[str, float]] = []
        self._writing = asyncio.Lock()

    async def send(self, **payload: Any) -> float:
        async with self._writing:
            sent_s = time.perf_counter()
            await self.call.write(Ask(**payload))
        return sent_s

    async def until(self, condition: Callable[[], bool]) -> None:
        """Take what comes until that is so."""
        while not condition():
            response = await self.call.read()
            assert response is not grpc.aio.EOF, "the conversation ended"
            now_s, payload = time.perf_counter(), response.WhichOneof("payload")
            if payload == "audio":
                self.packets.setdefault(response.epoch, []).append(now_s)
            elif payload == "ended":
                self.ended[response.epoch] = now_s
            elif payload == "event" and response.event.type == "turn_measured":
                told = {one.name: one.since_user_speech_end.ToNanoseconds() / 1e9 for one in response.event.milestones}
                self.milestones.append(told)

    async def first_sound(self, known: set[int], count: int = 1) -> int:
        """The epoch of the next answer, once so many packets of it are here."""

        def new() -> list[int]:
            return [epoch for epoch, times in self.packets.items() if epoch not in known and len(times) >= count]

        await self.until(lambda: bool(new()))
        return new()[0]

    async def silenced(self, epoch: int, since_s: float) -> float:
        """How long after `since_s` the last packet of that answer came."""
        await self.until(lambda: epoch in self.ended)
        return max(0.0, self.packets[epoch][-1] - since_s)


@asynccontextmanager
async def microphone(caller: Caller) -> AsyncIterator[Callable[[str], asyncio.Future[tuple[float, float]]]]:
    """Silence in real time, and what is said into it: gives when the first and the last loud sample were sent."""
    waiting: list[tuple[np.ndarray[Any, Any], asyncio.Future[tuple[float, float]]]] = []

    def say(name: str) -> asyncio.Future[tuple[float, float]]:
        samples, _ = soundfile.read(SPEECH / f"{name}.flac", dtype="int16")
        said: asyncio.Future[tuple[float, float]] = asyncio.get_running_loop().create_future()
        waiting.append((samples, said))
        return said

    async def run() -> None:
        due_s, at, first_s, last_s = time.perf_counter(), 0, 0.0, 0.0
        while True:
            block = np.zeros(BLOCK, np.int16)
            if waiting:
                samples, said = waiting[0]
                block = np.pad(samples[at : at + BLOCK], (0, max(0, BLOCK - samples[at : at + BLOCK].size)))
                at += BLOCK
                if np.abs(block).max() > LOUD:
                    last_s = due_s + BLOCK / HEARD_HZ
                    first_s = first_s or due_s
                if at >= samples.size:
                    waiting.pop(0)
                    said.set_result((first_s, last_s))
                    at, first_s = 0, 0.0
            await caller.send(audio=block.tobytes())
            due_s += BLOCK / HEARD_HZ
            await asyncio.sleep(max(0.0, due_s - time.perf_counter()))

    running = asyncio.create_task(run())
    try:
        yield say
    finally:
        running.cancel()
        await asyncio.wait([running])


async def typed(caller: Caller, count: int, report: Report | None) -> None:
    """Questions, each silenced as soon as it sounds."""
    firsts, silences = [], []
    for number in range(count):
        known = set(caller.packets)
        asked_s = await caller.send(text=QUESTIONS[number % len(QUESTIONS)])
        epoch = await caller.first_sound(known, 5)
        firsts.append(caller.packets[epoch][0] - asked_s)
        silences.append(await caller.silenced(epoch, await caller.send(interrupt=stream_pb2.Stop())))
    if report is not None:
        report.add("question_to_first_sound_s", firsts, by="keyboard")
        report.add("interrupt_to_last_sound_s", silences, by="keyboard")
        tell_steps(report, caller.milestones, by="keyboard")


async def spoken(caller: Caller, count: int, report: Report) -> None:
    """A spoken question over a running story, n times: it silences the story and is answered."""
    silences, firsts = [], []
    caller.milestones.clear()
    async with microphone(caller) as say:
        for _ in range(count):
            known = set(caller.packets)
            await caller.send(text=STORY)
            story = await caller.first_sound(known, 75)  # 1.5 s: half of the interruptions come early in an answer
            saying, known = say(SPOKEN), set(caller.packets)
            await caller.until(lambda story=story: story in caller.ended)  # type: ignore[misc]
            epoch = await caller.first_sound(known)
            began_s, over_s = await saying
            silences.append(caller.packets[story][-1] - began_s)
            firsts.append(caller.packets[epoch][0] - over_s)
            await caller.until(lambda epoch=epoch: epoch in caller.ended)  # type: ignore[misc]
    report.add("voice_to_last_sound_s", silences, by="voice")
    report.add("question_to_first_sound_s", firsts, by="voice")
    tell_steps(report, [told for told in caller.milestones if told.get("endpoint", 0.0) > 0.01], by="voice")


def tell_steps(report: Report, turns: Sequence[dict[str, float]], **where: str) -> None:
    """The steps of every turn as the gateway tells them; they must add up."""
    steps: dict[str, list[float]] = {}
    for told in turns:
        before_s = 0.0
        for name, at_s in sorted(told.items(), key=lambda item: item[1]):
            steps.setdefault(name, []).append(at_s - before_s)
            before_s = at_s
        steps.setdefault("endpoint → playout_first", []).append(told["playout_first"] - told["endpoint"])
    for name, samples in steps.items():
        if name != "user_speech_end":
            report.add("step_s", samples, step=name, **where)


@asynccontextmanager
async def gateway_address(arguments: argparse.Namespace) -> AsyncIterator[str]:
    """Of the one that was named, or of one started here with everything below it."""
    if arguments.gateway:
        yield arguments.gateway
        return
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "cli", "serve", "all", "--ports", "free"),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "gen")]), "OMP_NUM_THREADS": "1"},
    )
    try:
        assert child.stdout is not None
        ready = [json.loads(await child.stdout.readline()) for _ in range(4)]
        yield next(line["address"] for line in ready if line["service"] == "gateway")
    finally:
        child.terminate()
        await child.wait()


async def measure(arguments: argparse.Namespace) -> Report:
    """Both ways of talking, one after the other."""
    facts = {name: value for name, value in vars(arguments).items() if name != "out"}
    report = Report("conversation", configuration=facts)
    async with gateway_address(arguments) as address, grpc.aio.insecure_channel(address) as channel:
        caller = Caller(channel)
        await caller.send(start=gateway_pb2.ConverseStart())
        await typed(caller, arguments.warm_up, None)
        caller.milestones.clear()
        await typed(caller, arguments.typed, report)
        if arguments.spoken:
            await spoken(caller, arguments.spoken, report)
        await caller.call.done_writing()
    return report


def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="voicemesh bench conversation", description=__doc__)
    parser.add_argument("--gateway", default="", help="HOST:PORT; absent: everything is started here")
    parser.add_argument("--typed", type=int, default=40, help="typed questions")
    parser.add_argument("--spoken", type=int, default=10, help="spoken questions over a story")
    parser.add_argument("--warm-up", type=int, default=4, help="typed questions that do not count")
    parser.add_argument("--out", type=Path, help="directory of the report; default bench/results")
    arguments = parser.parse_args(argv)
    report = asyncio.run(measure(arguments))
    print(report.table())
    print(report.write(arguments.out) if arguments.out else report.write())
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
