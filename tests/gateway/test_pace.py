"""Paced speech: a clock, a lead, and silence where nothing came in time."""

from __future__ import annotations

import time

import pytest
from voicemesh.codec.v1 import codec_pb2
from voicemesh.stream.v1 import stream_pb2

from common.errors import InvalidRequest
from common.stage import duration
from common.stream import FinishReason
from services.gateway.pace import Pace
from tests.edges import gateway
from tests.fakes import speak, tone
from tests.gateway.caller import calling


def packet(first: int, frames: int = 1) -> codec_pb2.AudioChunk:
    return codec_pb2.AudioChunk(
        first_sample_offset=first * 1920,
        sample_count=frames * 1920,
        first_frame_index=first,
        frame_count=frames,
        duration=duration(frames * 0.08),
    )


def test_what_is_early_waits_until_only_the_lead_lies_ahead() -> None:
    pace = Pace(stream_pb2.AudioFormat(), 0.2)
    pace.deliver(packet(0), 10.0)
    assert (pace.due_s, pace.dry_s) == (pytest.approx(9.88), pytest.approx(10.08))
    pace.deliver(packet(1, 4), 10.0)
    assert (pace.due_s, pace.dry_s) == (pytest.approx(10.2), pytest.approx(10.4))


def test_silence_is_counted_and_moves_what_comes_behind_it() -> None:
    pace = Pace(stream_pb2.AudioFormat(), 0.2)
    pace.deliver(packet(0), 10.0)
    silence = [pace.silence(0.0) for _ in range(2)]
    assert [(it.first_sample_offset, it.sample_count, it.frame_count) for it in silence] == [
        (1920, 480, 0),
        (2400, 480, 0),
    ]
    late = packet(1)
    pace.deliver(late, 10.2)
    assert (late.first_sample_offset, pace.dry_s, pace.silent_samples) == (2880, pytest.approx(10.2), 960)


def test_the_silence_of_every_encoding_is_silent_and_opus_has_none() -> None:
    for encoding, silent, size in ((1, 0, 960), (2, 0, 1920), (4, 0xFF, 480)):
        pace = Pace(stream_pb2.AudioFormat(encoding=encoding), 0.2)  # type: ignore[arg-type]
        pace.deliver(packet(0), 0.0)
        assert pace.silence(0.0).payload == bytes([silent]) * size
    with pytest.raises(InvalidRequest, match="paced"):
        Pace(stream_pb2.AudioFormat(encoding=stream_pb2.AUDIO_ENCODING_OPUS), 0.2)


async def test_a_pause_for_late_text_is_covered_by_silence_on_the_clock() -> None:
    async with gateway() as server, calling(server.address) as caller:
        await caller.start(paced=True)
        await caller.text("on")
        spoken = speak("on", 7)
        while not any(packet.frame_count == 0 for packet in caller.packets):
            await caller.next()
        await caller.text(" time")
        await caller.flush()
        await caller.to_end()
        sound = b"".join(packet.payload for packet in caller.packets if packet.frame_count)
        silent = b"".join(packet.payload for packet in caller.packets if not packet.frame_count)
        assert sound == tone(speak("on time", 7))[0].tobytes()
        assert not any(silent)
        assert len(silent) > 0
        assert caller.pcm.startswith(tone(spoken)[0].tobytes())
        assert caller.ended.sample_count * 2 == len(sound) + len(silent)
        assert caller.reason is FinishReason.COMPLETED


async def test_paced_speech_that_comes_in_time_holds_no_silence_and_takes_its_time() -> None:
    async with gateway(paced_lead_s=0.1) as server, calling(server.address) as caller:
        begin_s = time.monotonic()
        await caller.say("in time", paced=True, speech={"packet_ramp": {"frames": [8]}})
        assert time.monotonic() - begin_s > (len(speak("in time")) - 8) * 0.08 - 0.2
        assert caller.pcm == tone(speak("in time", 7))[0].tobytes()
        assert all(packet.frame_count for packet in caller.packets)
