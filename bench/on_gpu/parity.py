"""Whether this device computes what was promised: against stored outputs of the reference, and against itself.

Greedy codes of the stored cases through tts_lm's engine; samples of the stored codes through the codec's; then the
equalities that carry the design: graph = eager, a row = the same row alone (deterministic profile), a reused slot = a
fresh one. Every figure is a share that must be 1, or a gap beside what it may be.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

import numpy as np

from bench.loads import Line
from bench.on_gpu.budget import Budget
from bench.on_gpu.speech import endless
from bench.on_gpu.suite import Suite
from bench.report import ROOT
from cli.checkpoint.random import write_random
from services.codec.engine import open_engine
from services.codec.runner import Runner
from services.codec.schedule import Row
from services.codec.types import AudioBatch, DecodeSpec, Encoding, EngineSettings
from services.tts_lm.types import CloneVoice, EngineOptions, FrameBatch, SamplingParams, UtteranceRequest
from tools.reference.talker_cases import CASES, CHECKPOINTS, Case, Checkpoint

STORE = ROOT / "tests" / "reference"
PACKETS = (1, 2, *[4] * 100)
EVERY_CASE = {"custom-a", "base-a"}
"""On a tiny scale only these checkpoints are spoken."""


async def parity(suite: Suite, budget: Budget) -> None:
    """Stored references and the equalities, on this device."""
    wanted = [c for c in CHECKPOINTS if suite.on_gpu or c.name in EVERY_CASE]
    for place, checkpoint in enumerate(wanted):
        await _greedy_codes(suite, checkpoint)
        if budget.left_s < budget.seconds / 3:
            suite.report.value("checkpoints_left_out", len(wanted) - place - 1)
            break
    for name in ("tiny", "real") if suite.on_gpu else ("tiny",):
        await _stored_sound(suite, name)
    _codec_equalities(suite)
    await _talker_equalities(suite)


async def _greedy_codes(suite: Suite, checkpoint: Checkpoint) -> None:
    """Every stored case of a checkpoint, its lines together as one batch, in float32."""
    from services.tts_lm.load import create_engine

    directory = suite.scratch / checkpoint.name
    write_random(directory, checkpoint.like, checkpoint.type, checkpoint.seed, **checkpoint.overrides)  # type: ignore[arg-type]
    with np.load(STORE / "tts_lm" / f"{checkpoint.name}.npz") as file:
        stored = dict(file)
    options = EngineOptions(str(directory), device=suite.device, dtype="float32", slot_count=4, kv_positions=4096)
    engine = create_engine(options)
    await engine.start()
    equal = frames = expected_frames = 0
    for case in CASES[checkpoint.type]:
        spoken = await asyncio.gather(*(_codes(engine, request, line) for request, line in _requests(case, stored)))
        for i, codes in enumerate(spoken):
            expected = stored[f"{case.name}/codes{i}"]
            same = sum(tuple(a) == tuple(b) for a, b in zip(codes, expected.tolist(), strict=False))
            equal, frames, expected_frames = equal + same, frames + len(codes), expected_frames + len(expected)
    await engine.close()
    share = equal / max(frames, expected_frames)
    suite.report.value("greedy_frames_equal", share, checkpoint=checkpoint.name, frames=expected_frames)


def _requests(case: Case, stored: dict[str, Any]) -> Iterator[tuple[UtteranceRequest, str]]:
    for i, line in enumerate(case.lines):
        voice: Any = line.voice or None
        if f"{case.name}/vector{i}" in stored:
            codes = stored[f"{case.name}/reference{i}"].flatten().tolist() if line.reference_frames else ()
            vector = tuple(stored[f"{case.name}/vector{i}"].tolist())
            voice = CloneVoice(vector, tuple(codes), line.reference_text)
        yield (
            UtteranceRequest(
                voice=voice,
                language=line.language,
                instruct=line.instruct,
                layout="whole" if case.layout == "whole" else "streaming",
                sampling=SamplingParams(seed=0, greedy=True),
                max_frames=case.frames,
                reference_behaviour=True,
            ),
            line.text,
        )


async def _codes(engine: Any, request: UtteranceRequest, text: str) -> list[tuple[int, ...]]:
    utterance = engine.submit(request)
    utterance.feed(text)
    utterance.flush()
    return [frame async for event in utterance if isinstance(event, FrameBatch) for frame in event.codes]


async def _stored_sound(suite: Suite, name: str) -> None:
    """Codes in packets through the codec's engine, against the reference's undivided decode in float64."""
    provenance = json.loads((STORE / "codec" / f"{name}.json").read_text())
    directory = write_random(suite.scratch / f"codec-{name}", **provenance["checkpoint"]["write_random"])
    with np.load(STORE / "codec" / f"{name}.npz") as file:
        codes, expected = file["codes"].tolist(), file["samples_float64"]
    engine = open_engine(EngineSettings(str(directory), device=suite.device, slot_count=2, encode=False))
    await engine.start()
    samples = await _sound(engine, codes)
    await engine.close()
    gap = float(np.abs(samples[:: provenance["every_nth_sample"]] - expected).max())
    suite.report.value("sound_gap", gap, codec=name, may_be=2 * provenance["float32_against_float64"])


async def _sound(engine: Any, codes: Sequence[Any]) -> np.ndarray:
    utterance, at = engine.submit(DecodeSpec(encoding=Encoding.PCM_F32LE)), 0
    for frames in PACKETS:
        if at < len(codes):
            utterance.feed([tuple(frame) for frame in codes[at : at + frames]])
            at += frames
    utterance.flush()
    heard = [event.payload async for event in utterance if isinstance(event, AudioBatch)]
    return np.frombuffer(b"".join(heard), "<f4")


def _codec_equalities(suite: Suite) -> None:
    """At the real dimensions on a GPU: gaps between ways that must not differ by more than rounding."""
    model = suite.model("0.6B")
    draw = np.random.default_rng(1)

    def opened(eager: bool = False) -> Runner:
        runner = Runner(
            model, device=suite.device, dtype="float32", row_count=4, max_batch=4, max_frames=2, eager=eager
        )
        runner.warm()
        return runner

    runner, eager = opened(), opened(eager=True)
    size, books = runner.config.decoder.codebook_size, runner.config.decoder.num_quantizers
    codes = [draw.integers(0, size, (5, books)).tolist() for _ in range(4)]

    def alone(with_runner: Runner, slot: int = 0) -> np.ndarray:
        return np.concatenate([with_runner.decode([Row(slot, t == 0, codes[0][t : t + 1])])[0] for t in range(5)])

    fresh = alone(runner)
    together = np.concatenate(
        [
            runner.decode([Row(slot, t == 0, codes[slot][t : t + 1]) for slot in range(4)])[0]
            for t in range(5)
            if runner.buckets.admits(4, 1)
        ]
    )
    ways = {"graph = eager": alone(eager), "reused slot = fresh": alone(runner), "row = alone": together}
    for way, sound in ways.items():
        suite.report.value("sound_gap", float(np.abs(sound - fresh).max()), way=way, may_be=1e-5)


async def _talker_equalities(suite: Suite) -> None:
    """Through the engine in the deterministic profile."""
    from services.tts_lm.load import create_engine

    options = EngineOptions(
        str(suite.model("0.6B")),
        device=suite.device,
        slot_count=4,
        deterministic=True,
        kv_positions=4 * suite.scale.positions,
        max_positions=suite.scale.positions,
    )
    engine = create_engine(options)
    await engine.start()
    said = list(islice(endless(2, suite.scale.longest_frames // 4), 4))

    async def spoken(line: Line) -> list[tuple[int, ...]]:
        request = UtteranceRequest(sampling=SamplingParams(seed=line.seed), max_frames=line.max_frames)
        return await _codes(engine, request, line.text)

    alone = await spoken(said[0])
    together = await asyncio.gather(*(spoken(line) for line in said))
    again = await spoken(said[0])
    await engine.close()
    for way, codes in {"row = alone": together[0], "reused slot = fresh": again}.items():
        suite.report.value("codes_equal", float(codes == alone and bool(alone)), way=way, profile="deterministic")
