"""Text to sound: joins one stream to the talker and one to the codec, an utterance at a time.

A `SpeechLine` serves one caller's stream. It refuses to know the caller's epochs (its own count utterances, so that
whatever a stage still says of an older one is dropped on sight), and how a stage is reached.

    text ──▶ tts_lm ──frames──▶ codec ──▶ sound
              ▲ credit: what may be made and not yet taken by the caller, so that nothing piles up between them
"""

from __future__ import annotations

import asyncio
from contextlib import aclosing

from voicemesh.codec.v1 import codec_pb2
from voicemesh.gateway.v1 import gateway_pb2
from voicemesh.stream.v1 import stream_pb2
from voicemesh.tts_lm.v1 import tts_lm_pb2

from common.errors import InvalidRequest, MeshError
from common.status import cause_of
from common.telemetry import TraceParent
from services.gateway.clients import Stages, StageStream
from services.gateway.utterance import Allowance, SpeechUtterance

Talker = StageStream[tts_lm_pb2.GenerateRequest, tts_lm_pb2.GenerateResponse]
Codec = StageStream[codec_pb2.DecodeRequest, codec_pb2.DecodeResponse]


class SpeechLine:
    """One caller's way through the stages: a stream to each, opened beforehand, and again after one was lost."""

    def __init__(self, stages: Stages, packet_ramp: tuple[int, ...], lead_frames: int) -> None:
        self._stages = stages
        self._packet_ramp = packet_ramp
        self._lead_frames = lead_frames
        self._epoch = -1
        self._now: SpeechUtterance | None = None
        self._is_wanted = asyncio.Event()
        self._is_open = True
        self.talker: Talker = stages.generate()
        self.codec: Codec = stages.decode()

    def submit(
        self, request: gateway_pb2.SynthesizeStart, trace_parent: TraceParent, session_id: str
    ) -> SpeechUtterance:
        """Begin an utterance on both streams. Its text and sound follow."""
        if request.speakable_filter:
            raise InvalidRequest("This gateway does not leave out what cannot be spoken.", reason="UNSUPPORTED")
        if not self._is_open:
            self._reopen()
        self._epoch += 1
        speech = request.speech
        trace = stream_pb2.TraceContext(traceparent=trace_parent[0], tracestate=trace_parent[1])
        allowance = Allowance(self._lead_frames, speech.max_lead_frames)
        utterance = self._now = SpeechUtterance(self, self._epoch, allowance)
        start = tts_lm_pb2.GenerateStart()
        start.CopyFrom(speech)
        start.trace.CopyFrom(trace)
        start.max_lead_frames = allowance.granted
        if not start.packet_ramp.frames:
            start.packet_ramp.frames.extend(self._packet_ramp)
        self.talker.send(tts_lm_pb2.GenerateRequest(session_id=session_id, epoch=self._epoch, start=start))
        prime = [*speech.voice.clone.codes, *speech.resume.codes]
        decode = codec_pb2.DecodeStart(format=request.format, prime_codes=prime, trace=trace)
        self.codec.send(codec_pb2.DecodeRequest(session_id=session_id, epoch=self._epoch, start=decode))
        return utterance

    def finished(self, utterance: SpeechUtterance, *, both_ended: bool) -> None:
        """Its end is told. Whoever has not ended it by itself drops it now."""
        if self._now is utterance:
            self._now = None
        if not both_ended:
            self.talker.send(tts_lm_pb2.GenerateRequest(epoch=utterance.epoch, stop=stream_pb2.Stop()))
            self.codec.send(codec_pb2.DecodeRequest(epoch=utterance.epoch, stop=stream_pb2.Stop()))

    def reset(self) -> None:
        """Let both stages forget."""
        if self._is_open and self._epoch >= 0:
            self.talker.send(tts_lm_pb2.GenerateRequest(reset=stream_pb2.Reset()))
            self.codec.send(codec_pb2.DecodeRequest(reset=stream_pb2.Reset()))

    async def run(self) -> None:
        """Carry what the stages answer, until cancelled. A lost stage fails the utterance that runs, nothing else."""
        while True:
            try:
                async with asyncio.TaskGroup() as group:
                    group.create_task(self._hear_talker())
                    group.create_task(self._hear_codec())
            except* MeshError as lost:
                error = cause_of(lost)
                assert isinstance(error, MeshError)
                self._lose(error)
            await self._is_wanted.wait()
            self._is_wanted.clear()

    def _lose(self, error: MeshError) -> None:
        self._is_open = False
        self.talker, self.codec = self._stages.generate(), self._stages.decode()
        if self._now is not None:
            self._now.lost(error)

    def _reopen(self) -> None:
        self.talker, self.codec = self._stages.generate(), self._stages.decode()
        self._is_open = True
        self._is_wanted.set()

    async def _hear_talker(self) -> None:
        async with aclosing(self.talker.responses()) as responses:
            async for response in responses:
                if self._now is not None and response.epoch == self._now.epoch:
                    self._now.hear_talker(response)

    async def _hear_codec(self) -> None:
        async with aclosing(self.codec.responses()) as responses:
            async for response in responses:
                if self._now is not None and response.epoch == self._now.epoch:
                    self._now.hear_codec(response)
