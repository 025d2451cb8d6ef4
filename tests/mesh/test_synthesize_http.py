"""The HTTP side of a gateway's process: where it says it is, and how it ends."""

from __future__ import annotations

import signal

import aiohttp
import numpy as np
import pytest

from tests.fakes import speak, tone
from tests.mesh.speech import speech_mesh

pytestmark = pytest.mark.timeout(60)
TEXT = "Let me finish, please."


async def test_a_gateway_that_is_told_to_end_finishes_what_it_says_over_http() -> None:
    talker = ["-m", "tests.fakes", "tts_lm", "--step-s", "0.03"]
    with speech_mesh([talker], [["-m", "tests.fakes", "codec"]], "--http", "--http-port", "0") as mesh:
        body = {"model": "tts-1", "voice": "tone", "input": TEXT, "response_format": "pcm", "seed": 5}
        async with (
            aiohttp.ClientSession(mesh.gateway.http) as session,
            session.post("/v1/audio/speech", json=body) as response,
        ):
            first = await response.content.readexactly(2 * 1920)
            mesh.gateway.process.send_signal(signal.SIGTERM)
            sound = first + await response.read()
        assert np.array_equal(np.frombuffer(sound, "<i2"), tone(speak(TEXT, 5))[0])
        assert mesh.gateway.process.wait(10) == 0
