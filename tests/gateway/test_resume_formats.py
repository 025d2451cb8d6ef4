"""A codec lost in mid-speech, with the real one: resamplers, Opus and stereo go on where the lost one's stood."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from voicemesh.stream.v1 import stream_pb2

from cli.checkpoint.random import write_random
from services.codec.config import CodecConfig
from services.codec.engine import open_engine
from tests.fakes import ToneTtsLm
from tests.gateway.test_resume import mesh

TEXT = "The quick brown fox jumps over the lazy dog."
FORMATS = [
    (stream_pb2.AUDIO_ENCODING_PCM_S16LE, 16000, 1),
    (stream_pb2.AUDIO_ENCODING_PCM_F32LE, 44100, 2),
    (stream_pb2.AUDIO_ENCODING_MULAW, 8000, 1),
    (stream_pb2.AUDIO_ENCODING_OPUS, 48000, 1),
]


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Any:
    model = write_random(Path(tmp_path_factory.mktemp("model")), like="tiny", seed=3, codebook_size=2048)
    return CodecConfig(model=str(model), dtype="float64", encode=False, slot_count=2).settings


@pytest.mark.timeout(60)
@pytest.mark.parametrize(("encoding", "rate_hz", "channels"), FORMATS)
async def test_a_lost_codec_costs_no_sample_in_any_format(
    settings: Any, encoding: Any, rate_hz: int, channels: int
) -> None:
    form = stream_pb2.AudioFormat(encoding=encoding, sample_rate_hz=rate_hz, channel_count=channels)
    codecs = [open_engine(settings) for _ in range(2)]
    async with mesh([ToneTtsLm(step_s=0.005)], codecs) as it:
        await it.caller.say(TEXT, format=form)
        whole = it.caller.pcm, it.caller.ended.sample_count
        await it.caller.start(format=form)
        await it.caller.text(TEXT[:20])
        await it.caller.heard(9)
        (spoke,) = [server for engine, server in it.codecs if engine.info().free_slot_count < 2]
        await spoke.stop()
        await it.caller.text(TEXT[20:])
        await it.caller.flush()
        await it.caller.to_end()
        assert it.caller.ended.sample_count == whole[1]
        if encoding == stream_pb2.AUDIO_ENCODING_PCM_F32LE:
            heard, said = (np.frombuffer(pcm, "<f4") for pcm in (it.caller.pcm, whole[0]))
            assert np.abs(heard - said).max() < 1e-6
        else:
            assert it.caller.pcm == whole[0]
