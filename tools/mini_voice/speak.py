"""A checkpoint directory speaks through the very engines that serve: for evaluation, in one process, without gRPC."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from services.codec.engine import AudioBatch, DecodeSpec, EngineSettings, open_engine
from services.tts_lm.load import create_engine
from services.tts_lm.types import EngineOptions, FrameBatch, SamplingParams, UtteranceRequest

SAMPLE_RATE_HZ = 24000
_SLOTS = 8
_FRAMES_PER_CHARACTER, _SPARE_FRAMES = 3, 40
Codes = list[tuple[int, ...]]


@dataclass(frozen=True)
class Said:
    """The frames of one text, and whether its end came of itself."""

    codes: Codes
    ended: bool


def speak(
    directory: Path, texts: Sequence[str], voice: str, *, layout: str = "streaming", seed: int = 0, greedy: bool = False
) -> list[Said]:
    """Codes of each text by the speech model of `directory`."""
    return asyncio.run(_speak(directory, texts, voice, layout, SamplingParams(seed=seed, greedy=greedy)))


def decode(directory: Path, utterances: Sequence[Codes]) -> list[npt.NDArray[np.float32]]:
    """Samples of each code sequence by the codec of `directory`."""
    return asyncio.run(_decode(directory, utterances))


async def _speak(
    directory: Path, texts: Sequence[str], voice: str, layout: str, sampling: SamplingParams
) -> list[Said]:
    engine = create_engine(EngineOptions(str(directory), slot_count=_SLOTS, thread_count=1))
    await engine.start()
    gate = asyncio.Semaphore(_SLOTS)

    async def one(text: str) -> Said:
        limit = _SPARE_FRAMES + _FRAMES_PER_CHARACTER * len(text)
        request = UtteranceRequest(
            voice=voice,
            language="english",
            layout="whole" if layout == "whole" else "streaming",
            sampling=sampling,
            max_frames=limit,
        )
        async with gate:
            utterance = engine.submit(request)
            utterance.feed(text)
            utterance.flush()
            codes: Codes = []
            async for event in utterance:
                if isinstance(event, FrameBatch):
                    codes.extend(event.codes)
        return Said(codes, len(codes) < limit - 1)

    said = await asyncio.gather(*(one(text) for text in texts))
    await engine.close()
    return list(said)


async def _decode(directory: Path, utterances: Sequence[Codes]) -> list[npt.NDArray[np.float32]]:
    engine = open_engine(EngineSettings(str(directory), slot_count=_SLOTS, encode=False))
    await engine.start()
    gate = asyncio.Semaphore(_SLOTS - 1)

    async def one(codes: Codes) -> npt.NDArray[np.float32]:
        async with gate:
            utterance = engine.submit(DecodeSpec())
            utterance.feed(codes)
            utterance.flush()
            parts = [event.payload async for event in utterance if isinstance(event, AudioBatch)]
        return np.frombuffer(b"".join(parts), np.int16).astype(np.float32) / np.float32(32768)

    sounds = await asyncio.gather(*(one(codes) for codes in utterances))
    await engine.close()
    return list(sounds)
