"""Five minutes, frame by frame: what a frame costs, and what is held, do not depend on how many came before."""

from __future__ import annotations

import gc
import time

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
    began = time.process_time()
    events = utterance.__aiter__()
    await anext(events)
    for index in range(FRAMES):
        utterance.feed([codes[index % PART]])
        batch = await anext(events)
        assert isinstance(batch, AudioBatch)
        assert batch.first_sample_offset == index * FRAME
        if index % PART == PART - 1:
            gc.collect()
            held.append(psutil.Process().memory_info().rss)
            now = time.process_time()
            seconds.append(now - began)
            began = now
    utterance.cancel()
    assert max(seconds) < 1.5 * min(seconds), seconds  # processor time of each minute, others using the machine too
    assert held[-1] - held[0] < 4 * 2**20, held
