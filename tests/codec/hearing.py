"""Speaking to an engine as its edge would, and listening to the end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch

from services.codec.model.decoder import Decoder
from services.codec.types import AudioBatch, Codes, Ended, Started, Utterance

FRAME = 1920


def random_codes(count: int, seed: int = 0, size: int = 64) -> Codes:
    rng = np.random.default_rng(seed)
    return tuple(tuple(int(code) for code in frame) for frame in rng.integers(0, size, (count, 16)))


@dataclass
class Heard:
    batches: list[AudioBatch] = field(default_factory=list)
    ended: Ended | None = None

    @property
    def payload(self) -> bytes:
        return b"".join(batch.payload for batch in self.batches)

    @property
    def s16(self) -> npt.NDArray[np.int16]:
        return np.frombuffer(self.payload, "<i2")

    @property
    def f32(self) -> npt.NDArray[np.float32]:
        return np.frombuffer(self.payload, "<f4")


async def listen(utterance: Utterance) -> Heard:
    """Everything to the end, checking what holds for every utterance."""
    heard = Heard()
    started, samples, frames = 0, 0, 0
    async for event in utterance:
        assert heard.ended is None, "an event after ended"
        match event:
            case Started():
                started += 1
            case AudioBatch():
                assert event.first_sample_offset == samples
                assert event.first_frame_index == frames
                samples += event.sample_count
                frames += event.frame_count
                heard.batches.append(event)
            case Ended():
                heard.ended = event
    assert started == 1
    assert heard.ended is not None
    assert (heard.ended.sample_count, heard.ended.frame_count) == (samples, frames)
    return heard


async def say(utterance: Utterance, codes: Codes, sizes: Sequence[int] = (4,)) -> Heard:
    """Feed in packets of these sizes (the last repeats), flush, listen."""
    at, packets = 0, list(sizes)
    while at < len(codes):
        size = packets.pop(0) if len(packets) > 1 else packets[0]
        utterance.feed(codes[at : at + size])
        at += size
    utterance.flush()
    return await listen(utterance)


def whole(decoder: Decoder, codes: Codes, heard_from: int = 0) -> npt.NDArray[np.float64]:
    """One undivided decode from nothing; the samples from frame `heard_from` on."""
    state = decoder.new_state(1, len(codes))
    samples = decoder(torch.tensor([codes]), state, torch.zeros(1, dtype=torch.int64), torch.ones(1, dtype=torch.bool))
    return np.asarray(samples[0].double())[heard_from * FRAME :]
