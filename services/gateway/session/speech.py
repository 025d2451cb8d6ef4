"""One epoch as the agent knows it, how it is to be spoken, and what of it was heard. Pure but for what it holds."""

from __future__ import annotations

from dataclasses import dataclass, field

from voicemesh.brain.v1 import brain_pb2
from voicemesh.gateway.v1 import gateway_pb2
from voicemesh.stream.v1 import stream_pb2
from voicemesh.tts_lm.v1 import tts_lm_pb2

from common.stream import FinishReason
from common.telemetry import Work
from services.gateway.media.playout import Playout
from services.gateway.session import ports
from services.gateway.session.answer import Answer
from services.gateway.session.brain_client import BrainAnswer
from services.gateway.turns import states


@dataclass(frozen=True)
class Heard:
    """Of an answer: samples at 24 kHz, the text of them, and how many characters of all its text that is."""

    samples: int
    text: str
    characters: int


NOTHING = Heard(0, "", 0)


@dataclass
class Speech:
    """One epoch and what belongs to it."""

    answer: Answer
    kind: states.Kind
    brain: BrainAnswer | None = None
    is_told: bool = False  # AnswerStarted was
    span: Work | None = None  # of its playout
    reported: tuple[int, float] | None = None  # samples heard, by the client, and when it said so
    calls: list[brain_pb2.ToolCall] = field(default_factory=list)  # wanted while it was a guess

    def heard_samples(self, playout: Playout, now_s: float, client_buffer_s: float) -> int:
        """By the client's last word and the time since, or by what was sent and its buffer."""
        sent = playout.sent(self.answer.epoch)
        if self.reported is None:
            return max(0, sent - round(client_buffer_s * ports.PLAYED_RATE_HZ))
        samples, reported_s = self.reported
        return min(sent, samples + round((now_s - reported_s) * ports.PLAYED_RATE_HZ))

    def heard(self, playout: Playout, now_s: float, client_buffer_s: float, *, is_whole: bool) -> Heard:
        """`is_whole`: nobody cut it."""
        words, epoch = self.answer.words, self.answer.epoch
        samples = playout.sent(epoch) if is_whole else self.heard_samples(playout, now_s, client_buffer_s)
        is_all = is_whole and self.answer.speech_reason is FinishReason.COMPLETED
        characters = len(words.text) if is_all else words.heard(samples)
        return Heard(samples, words.text[:characters], characters)


def spoken_by(settings: ports.SessionSettings) -> gateway_pb2.SynthesizeStart:
    """How a session speaks."""
    speech = tts_lm_pb2.GenerateStart()
    if settings.speech is not None:
        speech.CopyFrom(settings.speech)
    for name in ("resume", "text_timeout", "max_lead_frames", "trace"):
        speech.ClearField(name)
    if settings.voice:
        speech.voice.name = settings.voice
    speech.language = settings.language or speech.language
    speech.instruct = settings.instruct or speech.instruct
    form = stream_pb2.AudioFormat(
        encoding=stream_pb2.AUDIO_ENCODING_PCM_S16LE, sample_rate_hz=ports.PLAYED_RATE_HZ, channel_count=1
    )
    return gateway_pb2.SynthesizeStart(speech=speech, format=form)
