"""What the brain adds to its model: how soon a token leaves, and how long after the last word the first one comes.

`leave`: a brain in a process of its own, the offline backend at 200 tokens/s; from the engine making a token
(`produced_time`) until this process has read it, so with one hop over loopback on top of leaving. Both processes read
the same clock.

`first token`: from `finish` to the first piece, for 2 s and 30 s of audio that came in blocks of 20 ms, at its own
pace for the offline brain (which hears meanwhile) and at once for models (which take a recording whole). Tiny models
tell what everything around a model costs (features, prompt, queues); a real one adds its own prefill.

    python -m bench.brain [--backend offline|transformers|vllm] [--turns N] [--long-turns N]
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import numpy as np
from voicemesh.brain.v1 import brain_pb2, brain_pb2_grpc

from bench.report import ROOT, Report
from services.brain.engine import BackendOptions, BrainLimits, LocalOptions, OfflineOptions, create_engine
from services.brain.types import BrainSampling, Ended, TextPiece, TurnRequest

RATE_HZ = 16000
BLOCK_S = 0.02
WARM_UP = 5


@asynccontextmanager
async def served(tokens_per_s: float) -> AsyncIterator[str]:
    """The address of a brain in a process of its own."""
    command = ["-m", "services.brain", "--port", "0", "--no-metrics", "--log-level", "ERROR"]
    pace = ["--offline-tokens-per-s", str(tokens_per_s)]
    process = await asyncio.create_subprocess_exec(
        sys.executable, *command, *pace, cwd=ROOT, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    try:
        line = (await process.stdout.readline()).decode()
        yield line.split('"address": "')[1].split('"')[0]
    finally:
        process.terminate()
        await process.wait()


async def leave(stub: Any, first: list[float], later: list[float]) -> None:
    """One turn; how old its pieces were when they were here."""
    call = stub.Respond()
    await call.write(brain_pb2.RespondRequest(start=brain_pb2.RespondStart()))
    await call.write(brain_pb2.RespondRequest(text="count to twenty"))
    await call.write(brain_pb2.RespondRequest(finish=brain_pb2.Finish()))
    is_first = True
    while not (response := await call.read()).HasField("ended"):
        if response.HasField("text"):
            age = time.time() - response.text.produced_time.ToNanoseconds() / 1e9
            (first if is_first else later).append(age)
            is_first = False
    await call.done_writing()


async def bench_leave(report: Report, turns: int) -> None:
    """One person, then eight at once."""
    async with served(200.0) as address, grpc.aio.insecure_channel(address) as channel:
        stub = brain_pb2_grpc.BrainServiceStub(channel)
        for _ in range(WARM_UP):
            await leave(stub, [], [])
        for together in (1, 8):
            first: list[float] = []
            later: list[float] = []
            for _ in range(turns // together):
                await asyncio.gather(*(leave(stub, first, later) for _ in range(together)))
            report.add("first_piece_leaves_s", first, turns_at_once=together)
            report.add("later_piece_leaves_s", later, turns_at_once=together)


_tones = itertools.count(200)


def sound(seconds: float) -> bytes:
    """A tone that comes and goes four times a second, each time another, so that no cache has it."""
    at = np.arange(int(seconds * RATE_HZ)) / RATE_HZ
    samples = 0.3 * np.sin(2 * np.pi * next(_tones) * at) * np.abs(np.sin(2 * np.pi * 2 * at))
    return (samples * 32767).astype("<i2").tobytes()


async def first_token_s(engine: Any, seconds: float, in_real_time: bool) -> float:
    """From `finish` to the first piece, or to the end when nothing is said."""
    turn = engine.submit(TurnRequest(sampling=BrainSampling(max_tokens=4)))
    pcm, size = sound(seconds), int(BLOCK_S * RATE_HZ) * 2
    for at in range(0, len(pcm), size):
        turn.feed_audio(pcm[at : at + size])
        await asyncio.sleep(BLOCK_S if in_real_time else 0)
    begun = time.perf_counter()
    turn.finish()
    taken: float | None = None
    async for event in turn:
        if taken is None and isinstance(event, TextPiece | Ended):
            taken = time.perf_counter() - begun
    assert taken is not None
    return taken


async def bench_first_token(report: Report, options: BackendOptions, turns: int, in_real_time: bool) -> None:
    """2 s against 30 s, taking turns."""
    engine = create_engine(options, BrainLimits())
    await engine.start()
    backend = engine.info().backend
    samples: dict[float, list[float]] = {2.0: [], 30.0: []}
    for seconds in samples:
        await first_token_s(engine, seconds, in_real_time=False)
    for _ in range(turns):
        for seconds, taken in samples.items():
            taken.append(await first_token_s(engine, seconds, in_real_time))
    for seconds, taken in samples.items():
        report.add("first_token_after_finish_s", taken, backend=backend, audio_s=seconds)
    medians = [sorted(taken)[len(taken) // 2] for taken in samples.values()]
    report.value("first_token_30_s_against_2_s", medians[1] / medians[0], backend=backend)
    await engine.close()


async def run(arguments: argparse.Namespace) -> Report:
    """All of it."""
    report = Report("brain", configuration=vars(arguments) | {"warm_up": WARM_UP})
    if arguments.backend == "offline":
        await bench_leave(report, arguments.turns)
        options = BackendOptions(offline=OfflineOptions(tokens_per_s=0))
        await bench_first_token(report, options, arguments.long_turns, in_real_time=True)
        return report
    with tempfile.TemporaryDirectory() as folder:
        model = arguments.model or _tiny(Path(folder))
        local = LocalOptions(
            "", arguments.device, local_files_only=True, max_model_tokens=arguments.max_model_tokens,
            extra={"enforce_eager": True} if arguments.backend == "vllm" and arguments.device == "cpu" else {},
        )  # fmt: skip
        options = BackendOptions(f"{arguments.backend}:{model}", local=local)
        await bench_first_token(report, options, arguments.long_turns, in_real_time=False)
    return report


def _tiny(folder: Path) -> str:
    import torch

    from tests.brain.tiny_models import write_qwen3_omni

    torch.set_num_threads(1)
    return str(write_qwen3_omni(folder / "omni"))


def main(flags: Sequence[str] | None = None) -> int:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(prog="python -m bench.brain", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--backend", choices=("offline", "transformers", "vllm"), default="offline")
    parser.add_argument("--turns", type=int, default=200, help="turns of `leave` (default 200)")
    parser.add_argument("--long-turns", type=int, default=5, help="turns of each length (default 5)")
    parser.add_argument("--model", default="", help="directory of a model that hears (default: a tiny random one)")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--max-model-tokens", type=int, default=2048)
    arguments = parser.parse_args(flags)
    report = asyncio.run(run(arguments))
    print(report.table())
    print(report.write())
    return 0


if __name__ == "__main__":
    sys.exit(main())
