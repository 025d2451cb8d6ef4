"""Five minutes, frame by frame: what a frame costs, and what is held, do not depend on how many came before."""

from __future__ import annotations

import gc
import time
from statistics import median

import psutil
import pytest

from services.codec.engine import AudioBatch, CodecEngine, DecodeSpec
from tests.codec.hearing import FRAME, random_codes

FRAMES = 3750
PART = 750


@pytest.mark.timeout(240)
async def test_five_minutes_cost_the_same_to_the_last_frame(engine: CodecEngine) -> None:
    utterance = engine.submit(DecodeSpec())
    codes = random_codes(PART)
    seconds, held = [], []
    events = utterance.__aiter__()
    await anext(events)
    for index in range(FRAMES):
        began = time.perf_counter()
        utterance.feed([codes[index % PART]])
        batch = await anext(events)
        seconds.append(time.perf_counter() - began)
        assert isinstance(batch, AudioBatch)
        assert batch.first_sample_offset == index * FRAME
        if index % PART == PART - 1:
            gc.collect()
            held.append(psutil.Process().memory_info().rss)
    utterance.cancel()
    parts = [median(seconds[i : i + PART]) for i in range(0, FRAMES, PART)]
    assert max(parts[1:]) < 2 * min(parts[1:]), parts  # the medians of four minutes, on a machine that others use too
    assert held[-1] - held[0] < 4 * 2**20, held
