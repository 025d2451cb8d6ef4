"""A process that hangs: its connections live, it says nothing, and nobody has to wait for it."""

from __future__ import annotations

import signal

import pytest

from common.stream import FinishReason
from tests.fakes import speak, tone
from tests.gateway.caller import calling
from tests.mesh.speech import busy, speech_mesh

pytestmark = [pytest.mark.fault, pytest.mark.timeout(60)]
TEXT = "Nobody waits for the one who hangs."


@pytest.mark.parametrize("stage", ["talkers", "codecs"])
async def test_a_replica_that_hangs_in_mid_sentence_is_given_up(stage: str) -> None:
    talker, codec = ["-m", "tests.fakes", "tts_lm", "--step-s", "0.01"], ["-m", "tests.fakes", "codec"]
    with speech_mesh([talker] * 2, [codec] * 2, "--stall-timeout-s", "1.5") as mesh:
        async with calling(mesh.gateway.address) as caller:
            await caller.start()
            await caller.text(TEXT[:12])
            await caller.heard(5)
            hanging = await busy(getattr(mesh, stage))
            hanging.process.send_signal(signal.SIGSTOP)
            try:
                await caller.text(TEXT[12:])
                await caller.flush()
                await caller.to_end()
            finally:
                hanging.process.send_signal(signal.SIGCONT)
        assert caller.reason is FinishReason.COMPLETED
        assert caller.pcm == tone(speak(TEXT, 7))[0].tobytes()
