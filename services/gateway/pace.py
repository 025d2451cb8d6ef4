"""A clock on which sound is delivered as something that plays it would take it. Pure: times in, packets out.

delivered ■■■■■■■■■■■■■■■■■■■■■■■■■
          begin      now ▲    ▲ dry: nothing is left to play; silence covers the pause from here on
                         └────┘ lead: what is early waits until no more than this lies ahead
"""

from __future__ import annotations

from voicemesh.codec.v1 import codec_pb2
from voicemesh.stream.v1 import stream_pb2

from common.errors import InvalidRequest
from common.stage import duration, timestamp

SILENCE_S = 0.02
_SILENT = {
    stream_pb2.AUDIO_ENCODING_UNSPECIFIED: (b"\0", 2),
    stream_pb2.AUDIO_ENCODING_PCM_S16LE: (b"\0", 2),
    stream_pb2.AUDIO_ENCODING_PCM_F32LE: (b"\0", 4),
    stream_pb2.AUDIO_ENCODING_MULAW: (b"\xff", 1),
}


class Pace:
    """One utterance on its clock, which begins with its first packet. Times are seconds of one monotonic clock."""

    def __init__(self, form: stream_pb2.AudioFormat, lead_s: float) -> None:
        if form.encoding not in _SILENT:
            raise InvalidRequest("Only PCM and mu-law can be paced.", reason="UNSUPPORTED", field="paced")
        self._silent, width = _SILENT[form.encoding]
        self._width = width * (form.channel_count or 1)
        self._lead_s = lead_s
        self._begin_s: float | None = None
        self._rate_hz = 0
        self._samples = 0  # delivered, silence included
        self._frames = 0
        self.silent_samples = 0

    @property
    def dry_s(self) -> float | None:
        """When nothing will be left to play; None before the first packet."""
        return None if self._begin_s is None else self._begin_s + self._samples / self._rate_hz

    @property
    def due_s(self) -> float:
        """When the next packet may go."""
        dry_s = self.dry_s
        return 0.0 if dry_s is None else dry_s - self._lead_s

    def deliver(self, chunk: codec_pb2.AudioChunk, now_s: float) -> None:
        """It goes now, behind all silence that went before it."""
        if self._begin_s is None:
            self._begin_s = now_s
            self._rate_hz = round(chunk.sample_count / (chunk.duration.ToNanoseconds() / 1e9))
        chunk.first_sample_offset += self.silent_samples
        self._samples += chunk.sample_count
        self._frames = chunk.first_frame_index + chunk.frame_count

    def silence(self, unix_s: float) -> codec_pb2.AudioChunk:
        """20 ms that nobody spoke."""
        count = round(self._rate_hz * SILENCE_S)
        chunk = codec_pb2.AudioChunk(
            first_sample_offset=self._samples,
            sample_count=count,
            payload=self._silent * (count * self._width // len(self._silent)),
            first_frame_index=self._frames,
            duration=duration(count / self._rate_hz),
            produced_time=timestamp(unix_s),
        )
        self._samples += count
        self.silent_samples += count
        return chunk
