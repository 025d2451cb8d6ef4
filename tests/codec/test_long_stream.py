"""Five minutes, frame by frame: what a frame costs, and what is held, do not depend on how many came before."""

from __future__ import annotations

import gc
import time
from pathlib import Path

import psutil
import pytest

from services.codec.engine import AudioBatch, CodecEngine, DecodeSpec, EngineSettings
from tests.codec.hearing import FRAME, random_codes

MINUTES, MINUTE_FRAMES, PART_FRAMES = 5, 750, 50
TURNS = 10


class Listener:
    """One utterance, fed a part at a time and heard to its last frame before the next."""

    def __init__(self, engine: CodecEngine) -> None:
        self.utterance = engine.submit(DecodeSpec())
        self._events = self.utterance.__aiter__()
        self._codes = random_codes(PART_FRAMES)
        self._heard = 0

    async def begin(self) -> Listener:
        await anext(self._events)
        return self

    async def hear_part(self) -> float:
        """Seconds of the processor."""
        began = time.process_time()
        self.utterance.feed(self._codes)
        for _ in range(PART_FRAMES):
            batch = await anext(self._events)
            assert isinstance(batch, AudioBatch)
            assert (batch.first_sample_offset, batch.sample_count) == (self._heard * FRAME, FRAME)
            self._heard += 1
        return time.process_time() - began


@pytest.mark.timeout(240)
async def test_after_five_minutes_a_frame_costs_what_it_costs_a_young_utterance(tiny: Path) -> None:
    engine = CodecEngine(EngineSettings(str(tiny), slot_count=2, max_frames_per_step=1))
    await engine.start()
    old, held = await Listener(engine).begin(), []
    for _ in range(MINUTES):
        for _ in range(MINUTE_FRAMES // PART_FRAMES):
            await old.hear_part()
        gc.collect()
        held.append(psutil.Process().memory_info().rss)
    young = await Listener(engine).begin()
    # In turn, and the quietest part of each: others use the machine too.
    turns = [(await old.hear_part(), await young.hear_part()) for _ in range(TURNS)]
    for listener in (old, young):
        listener.utterance.cancel()
    await engine.close()
    old_s, young_s = (min(seconds) for seconds in zip(*turns, strict=True))
    assert old_s < 1.5 * young_s, turns
    assert held[-1] - held[0] < 4 * 2**20, held
