"""The live line of `say`, as a terminal would get it."""

from __future__ import annotations

import io
import time

from voicemesh.gateway.v1 import gateway_pb2
from voicemesh.stream.v1 import stream_pb2

from cli.live import LiveListener


def audio(seconds: float) -> gateway_pb2.SynthesizeResponse:
    return gateway_pb2.SynthesizeResponse(audio=gateway_pb2.SpeechAudio(payload=bytes(round(seconds * 48000))))


def test_every_packet_redraws_one_line_and_the_end_takes_it_away() -> None:
    terminal, sound = io.StringIO(), bytearray()
    heard = LiveListener(sound.extend, 24000, 2, terminal, clock=lambda: time.monotonic() + 0.5)
    heard.sending()
    assert not heard.receive(audio(0.08))
    assert not heard.receive(audio(1.92))
    lines = terminal.getvalue().split("\r\x1b[K")
    assert lines[0] == ""
    assert lines[1].startswith("0.1 s spoken · first packet 0 ms · RTF ")
    assert lines[2].startswith("2.0 s spoken")
    assert lines[2].endswith("RTF 0.25 · lead +1.5 s")
    assert heard.receive(gateway_pb2.SynthesizeResponse(ended=stream_pb2.Ended()))
    assert terminal.getvalue().endswith("\r\x1b[K")
    assert len(sound) == 96000
