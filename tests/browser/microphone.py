"""What is said into the browser's microphone: a WAV of a question, spoken by espeak-ng or, without it, by the mesh."""

from __future__ import annotations

import asyncio
import io
import shutil
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
import soundfile
import soxr

RATE_HZ = 48000


async def spoken(text: str, address: str) -> Any:
    """Float samples at 48 kHz, without silence at either end."""
    program = shutil.which("espeak-ng")
    if program is not None:
        arguments = ("-v", "en-us", "-s", "150", "--stdout", text)
        process = await asyncio.create_subprocess_exec(program, *arguments, stdout=asyncio.subprocess.PIPE)
        file, _ = await process.communicate()
    else:
        body = {"model": "tts-1", "voice": "default", "input": text, "response_format": "wav", "seed": 1}
        async with aiohttp.ClientSession() as session, session.post(f"{address}/v1/audio/speech", json=body) as answer:
            file = await answer.read()
    samples, rate_hz = soundfile.read(io.BytesIO(file), dtype="float32")
    samples = soxr.resample(samples, rate_hz, RATE_HZ)
    samples = 0.6 * samples / np.abs(samples).max()
    loud = np.flatnonzero(np.abs(samples) > 0.01)
    return samples[loud[0] : loud[-1] + 1]


def recorded(directory: Path, *parts: Any) -> str:
    """The browser's flag for a microphone that hears `parts` over and over: samples, or seconds of silence."""
    path = directory / "microphone.wav"
    pieces = [np.zeros(round(part * RATE_HZ)) if isinstance(part, int | float) else part for part in parts]
    soundfile.write(path, np.concatenate(pieces), RATE_HZ, subtype="PCM_16")
    return f"--use-file-for-fake-audio-capture={path}"
