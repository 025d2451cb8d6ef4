"""Both speech engines in one process, joined as the gateway joins them but without it: text in, PCM packets out.

Times count from the moment the first text is handed to tts_lm's engine to the moment the codec's engine delivers a
packet: the engines' edge. A listener begins with the first packet and never waits (bench/playback.py).
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.loads import SENTENCES, Line
from bench.playback import Heard, Packet, play
from common.errors import MeshError
from common.observer import NOBODY
from services.codec import engine as codec_engine
from services.codec.types import AudioBatch, DecodeSpec, EngineSettings
from services.codec.types import Ended as SoundEnded
from services.tts_lm.types import Ended, EngineOptions, FrameBatch, SamplingParams, UtteranceRequest

RATE_HZ, FRAME_RATE_HZ = 24_000, 12.5
RAMP = (1, 2, 4)
STEADY = (4,)
TURN_S = 30.0
"""Longest that anything may take before it is called lost."""


class StepLog(type(NOBODY)):  # type: ignore[misc]
    """An engine's observer that keeps what every step took and how many rows it had."""

    def __init__(self) -> None:
        self.steps: list[tuple[float, int]] = []

    def step(self, duration_s: float, batch_size: int) -> None:
        self.steps.append((duration_s, batch_size))

    def of(self, rows: int) -> list[float]:
        return [duration for duration, count in self.steps if count == rows]


@dataclass
class Pair:
    """The engines, READY, with what their steps took."""

    talker: Any
    codec: Any
    talker_steps: StepLog
    codec_steps: StepLog
    ready_s: dict[str, float] = field(default_factory=dict)

    async def all_free(self) -> None:
        """Wait until nobody is left of what was measured before: a cancel is obeyed by the engines' own threads."""
        async with asyncio.timeout(TURN_S):
            # Engines tell nobody but their callers, who were cancelled.
            while any(e.info().free_slot_count < e.info().slot_count for e in (self.talker, self.codec)):  # noqa: ASYNC110
                await asyncio.sleep(0.001)

    async def close(self) -> None:
        await self.talker.close()
        await self.codec.close()


async def open_pair(
    model: Path, device: str, slots: int, positions: int, *, deterministic: bool = False, dtype: str = "auto"
) -> Pair:
    """As `serve speech` has them: one process, one context. `positions` is the longest prompt and speech of a slot."""
    from services.tts_lm.load import create_engine

    talker_steps, codec_steps = StepLog(), StepLog()
    options = EngineOptions(
        str(model),
        device=device,
        dtype=dtype,  # type: ignore[arg-type]
        slot_count=slots,
        deterministic=deterministic,
        kv_positions=slots * positions,
        max_positions=positions,
    )
    settings = EngineSettings(
        str(model), device=device, slot_count=slots, max_parked_states=0, max_primed_voices=0, encode=False
    )
    pair = Pair(
        create_engine(options, talker_steps), codec_engine.open_engine(settings, codec_steps), talker_steps, codec_steps
    )
    for name, engine in (("tts_lm", pair.talker), ("codec", pair.codec)):
        began_s = time.perf_counter()
        await engine.start()
        pair.ready_s[name] = time.perf_counter() - began_s
    return pair


@dataclass
class Spoken:
    """What came of one answer."""

    packets: list[Packet] = field(default_factory=list)
    first_frame_s: float | None = None
    reason: str = "LOST"

    @property
    def whole(self) -> bool:
        return bool(self.packets) and self.reason in ("COMPLETED", "LENGTH")

    @property
    def heard(self) -> Heard:
        return play(self.packets, RATE_HZ, 0.0)


class Answer:
    """One utterance through both engines. `lead_frames`: so many ahead of its listener, who gives credit."""

    def __init__(self, pair: Pair, line: Line, ramp: Sequence[int] = RAMP, lead_frames: int | None = None) -> None:
        self.spoken = Spoken()
        self.sounds = asyncio.Event()
        self._ramp, self._lead_frames = ramp, lead_frames
        request = UtteranceRequest(
            sampling=SamplingParams(seed=line.seed),
            packet_ramp=tuple(ramp),
            max_frames=line.max_frames,
            max_lead_frames=lead_frames,
        )
        self.sound = pair.codec.submit(DecodeSpec())
        self.began_s = time.perf_counter()
        try:
            self.speech = pair.talker.submit(request)
        except MeshError:
            self.sound.cancel()
            raise
        self.speech.feed(line.text)
        self.speech.flush()

    async def run(self) -> Spoken:
        """To its end; whoever is cancelled here leaves nothing behind in the engines."""
        try:
            with contextlib.suppress(TimeoutError, MeshError):
                async with asyncio.timeout(TURN_S), asyncio.TaskGroup() as group:
                    group.create_task(self._join())
                    credit = group.create_task(self._credit()) if self._lead_frames else None
                    await self._listen()
                    if credit is not None:
                        credit.cancel()
        finally:
            self.sounds.set()  # of an answer without sound nobody waits any longer
            if self.spoken.reason == "LOST":
                self.cancel()
        return self.spoken

    def cancel(self) -> None:
        self.speech.cancel()
        self.sound.cancel()

    async def _join(self) -> None:
        async for event in self.speech:
            if isinstance(event, FrameBatch):
                self.spoken.first_frame_s = self.spoken.first_frame_s or time.perf_counter() - self.began_s
                self.sound.feed(event.codes)
            elif isinstance(event, Ended):
                self.spoken.reason = event.reason.name
                self.sound.flush()

    async def _listen(self) -> None:
        async for event in self.sound:
            if isinstance(event, AudioBatch):
                self.spoken.packets.append(Packet(time.perf_counter() - self.began_s, event.payload))
                self.sounds.set()
            elif isinstance(event, SoundEnded) and event.error is not None:
                self.spoken.reason = event.reason.name

    async def _credit(self) -> None:
        """A packet's worth of frames for every packet that the listener has played."""
        await self.sounds.wait()
        frames = self._ramp[-1]
        at_s = self.began_s + self.spoken.packets[0].time_s
        while True:
            at_s += frames / FRAME_RATE_HZ
            await asyncio.sleep(max(0.0, at_s - time.perf_counter()))
            self.speech.credit(frames)


async def speak(pair: Pair, line: Line, ramp: Sequence[int] = RAMP, lead_frames: int | None = None) -> Spoken:
    """One answer, or the reason of its refusal."""
    try:
        return await Answer(pair, line, ramp, lead_frames).run()
    except MeshError as error:
        return Spoken(reason=type(error).__name__.upper())


def endless(seed: int, frames: int) -> Iterator[Line]:
    """Answers of exactly so many frames: end of speech is masked as long as there is text."""
    draw = random.Random(seed)
    while True:
        yield Line(SENTENCES[-1] * (frames // 20 + 1), frames, draw.getrandbits(32))
