"""Sections at the engines' edge: first packets, open loop, real-time streams, stop, one voice alone, and a profile."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from itertools import islice
from typing import Any

from bench.loads import arrivals, lines
from bench.on_gpu.budget import Budget
from bench.on_gpu.profile import profiled
from bench.on_gpu.speech import STEADY, Answer, Spoken, endless, speak
from bench.on_gpu.suite import Suite
from bench.playback import listen
from bench.roofline import talker_step
from services.tts_lm.types import FrameBatch

STEADY_LEAD_FRAMES = 8
STAGGER_S = 1.0
BESIDE = 8
FRAME_S = 0.08


def tell(suite: Suite, spoken: Sequence[Spoken], **where: Any) -> None:
    """First packets, what was heard and what was not; answers that failed are counted, never left out in silence."""
    whole = [each for each in spoken if each.whole]
    heard = [each.heard for each in whole]
    if heard:
        suite.report.add("first_packet_s", [each.first_byte_s for each in heard], **where)
        suite.report.add("first_frame_s", [each.first_frame_s or 0.0 for each in whole], **where)
        audible = [each.first_audible_s for each in heard if each.first_audible_s is not None]
        if audible:
            suite.report.add("first_audible_s", audible, **where)
        suite.report.value("underruns", sum(each.underruns for each in heard), **where)
        suite.report.add("missing_s", [each.missing_s for each in heard], **where)
    suite.report.value("answers", len(spoken), **where)
    suite.report.value("answers_lost", len(spoken) - len(whole), **where)


async def bursts(suite: Suite, budget: Budget, size: str = "0.6B") -> None:
    """N texts at once, again and again: time to the first PCM packet of each."""
    pair = await suite.pair(size)
    for place, at_once in enumerate(suite.scale.bursts):
        part = budget.share(1, len(suite.scale.bursts) - place)
        said, spoken = endless(at_once, suite.scale.longest_frames // 5), list[Spoken]()
        for turn in range(suite.scale.rounds + 1):
            made = await asyncio.gather(*(speak(pair, line) for line in islice(said, at_once)))
            spoken += made if turn else []  # the first turn warms up
            if part.spent and turn:
                break
        tell(suite, spoken, load="burst", at_once=at_once, size=size)


async def open_loop(suite: Suite, budget: Budget, size: str = "1.7B") -> None:
    """Poisson arrivals, whatever still runs; every answer is heard by a listener who begins with its first packet."""
    pair = await suite.pair(size)
    for place, rate in enumerate(suite.scale.rates):
        part = budget.share(1, len(suite.scale.rates) - place)
        seconds = min(suite.scale.seconds, max(0.5, 0.75 * part.left_s))  # the rest is for those that still speak
        said, began_s = lines(1, ends_by_itself=False, longest_frames=suite.scale.longest_frames), time.perf_counter()
        answers: list[asyncio.Task[Spoken]] = []
        async with asyncio.TaskGroup() as group:
            for at_s in arrivals(1, rate, seconds):
                await asyncio.sleep(max(0.0, began_s + at_s - time.perf_counter()))
                answers.append(group.create_task(speak(pair, next(said))))
        tell(suite, [each.result() for each in answers], load="poisson", per_s=rate, size=size)


async def streams(suite: Suite, budget: Budget, size: str) -> None:
    """So many listeners at once in real time: steady packets of four frames, at most eight frames ahead of each."""
    pair = await suite.pair(size)
    counts = suite.scale.streams
    for place, count in enumerate(counts):
        part = budget.share(1, len(counts) - place)
        seconds = min(suite.scale.seconds, max(1.0, part.left_s - STAGGER_S))
        said = endless(count, 4 * max(1, round(seconds / FRAME_S / 4)))
        began_s, first_step = time.perf_counter(), len(pair.talker_steps.steps)
        async with asyncio.TaskGroup() as group:
            tasks = []
            for i in range(count):
                await asyncio.sleep(max(0.0, began_s + i * STAGGER_S / count - time.perf_counter()))
                tasks.append(group.create_task(speak(pair, next(said), STEADY, STEADY_LEAD_FRAMES)))
        spoken = [task.result() for task in tasks]
        where = {"load": "streams", "streams": count, "size": size}
        tell(suite, spoken, **where)
        margins = [margin for each in spoken if each.whole for margin in margins_s(each)]
        if margins:
            suite.report.add("packet_margin_s", margins, **where)
        clean = sum(each.whole and not each.heard.underruns for each in spoken)
        suite.report.value("streams_without_underrun", clean, **where)
        steps = pair.talker_steps.steps[first_step:]
        suite.report.add("step_s", [took for took, _ in steps], **where)
        suite.report.add("step_rows", [float(rows) for _, rows in steps], **where)


def margins_s(spoken: Spoken) -> list[float]:
    """How long before its moment each packet but the first came; 0 is an underrun."""
    pieces = [(packet.time_s, len(packet.pcm) / 2 / 24_000) for packet in spoken.packets]
    _, played = listen(pieces, 0.0)
    return [at_s - came_s for (came_s, _), at_s in zip(pieces[1:], played[1:], strict=True)]


async def alone(suite: Suite, budget: Budget, size: str) -> None:
    """One voice, nobody beside it: what a step takes, against what its bytes take at least."""
    pair = await suite.pair(size)
    first = len(pair.talker_steps.steps)
    for line in islice(endless(3, suite.scale.longest_frames), 3):
        await speak(pair, line, (1,))
        if budget.spent:
            break
    steps = [took for took, rows in pair.talker_steps.steps[first:] if rows == 1]
    found = suite.report.add("step_s", steps, load="alone", size=size)
    config, context = model_config(suite, size), suite.scale.longest_frames // 2
    frame = talker_step(config, 1, context, suite.item_bytes)
    suite.floor("frame", found["p50"], frame.byte_count, frame.operation_count, load="alone", size=size)


def model_config(suite: Suite, size: str) -> Any:
    from services.tts_lm.model.config import load_config

    return load_config(suite.model(size))


async def stop(suite: Suite, budget: Budget, size: str = "0.6B") -> None:
    """From a cancel to the slot that is free again, while others speak."""
    pair = await suite.pair(size)
    said = endless(9, suite.scale.longest_frames)
    others = [asyncio.create_task(speak(pair, next(said))) for _ in range(min(BESIDE, suite.scale.slots - 1))]
    taken: dict[str, list[float]] = {"tts_lm": [], "codec": []}
    for line in islice(said, suite.scale.samples):
        answer = Answer(pair, line)
        answer.sound.feed(await first_frames(answer.speech) * BESIDE)  # more than one step decodes
        taken["tts_lm"].append(await freed(pair.talker, answer.speech))
        taken["codec"].append(await freed(pair.codec, answer.sound))
        if budget.spent:
            break
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)
    for stage, times in taken.items():
        suite.report.add("stop_s", times, stage=stage, size=size)
    steps = [took for took, rows in pair.talker_steps.steps[-len(taken["tts_lm"]) :]]
    suite.report.add("step_s", steps, load="stop", size=size)


async def first_frames(utterance: Any) -> tuple[tuple[int, ...], ...]:
    """The codes of its first packet."""
    async for event in utterance:
        if isinstance(event, FrameBatch):
            return event.codes
    raise RuntimeError("it ended before it began")


async def freed(engine: Any, utterance: Any) -> float:
    """Seconds from `cancel` until the engine has its slot back."""
    free, began_s = engine.info().free_slot_count, time.perf_counter()
    utterance.cancel()
    async for _ in utterance:
        pass
    assert engine.info().free_slot_count > free, "the slot is free when the utterance has ended"
    return time.perf_counter() - began_s


async def profile(suite: Suite, budget: Budget, size: str) -> None:
    """What the device does in a frame, one voice and many: top kernels, and the gaps between them."""
    pair = await suite.pair(size)
    for rows in (1, min(32, suite.scale.slots)):
        await profiled(suite, pair, endless(5, suite.scale.longest_frames), rows, size)
        if budget.spent:
            return
