"""How each service says what all streams say: one `Dialect` per service, from shared words to its messages and back."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

from voicemesh.brain.v1 import brain_pb2, brain_pb2_grpc
from voicemesh.codec.v1 import codec_pb2, codec_pb2_grpc
from voicemesh.gateway.v1 import gateway_pb2, gateway_pb2_grpc
from voicemesh.stream.v1 import stream_pb2
from voicemesh.tts_lm.v1 import tts_lm_pb2, tts_lm_pb2_grpc

from common.status import error_of
from common.stream import FinishReason, Kind
from tests.fakes import SAMPLES_PER_FRAME, speak, tone
from tests.guarantees import Heard

LETTERS = "abcdefghijklmnopqrstuvwxyz"
PRODUCTS = ("frames", "audio", "text")


class Dialect(ABC):
    """One service's words. `piece(i)` is the i-th input of an utterance, `whole(n)` what n of them must become."""

    name: str
    path: str
    request: Any
    response: Any
    stub: Any
    method: str
    has_reset = True
    has_utterances = True
    supplement: dict[str, Any] | None = {"credit": stream_pb2.Credit(frames=1000)}  # noqa: RUF012

    def say(self, kind: Kind, index: int = 0, **marks: Any) -> Any:
        """A request of that kind; marks it cannot carry are left out."""
        if not self.has_utterances:
            marks.pop("utterance", None)
        return self.request(**self._payload(kind, index), **{k: v for k, v in marks.items() if v is not None})

    def kinds(self) -> list[Kind]:
        """What can be said here."""
        return [kind for kind in Kind if kind is not Kind.RESET or self.has_reset]

    def _payload(self, kind: Kind, index: int) -> dict[str, Any]:
        if kind is Kind.SUPPLEMENT:
            assert self.supplement is not None
            return self.supplement
        plain = {Kind.FLUSH: "flush", Kind.STOP: "stop", Kind.RESET: "reset"}
        words = {"flush": stream_pb2.Flush(), "stop": stream_pb2.Stop(), "reset": stream_pb2.Reset()}
        if kind in plain:
            return {plain[kind]: words[plain[kind]]}
        return self.start() if kind is Kind.START else self.piece(index)

    @abstractmethod
    def start(self) -> dict[str, Any]: ...

    @abstractmethod
    def faulty_start(self) -> dict[str, Any]:
        """A start that the engine refuses: a fault of this utterance alone."""

    @abstractmethod
    def piece(self, index: int) -> dict[str, Any]: ...

    @abstractmethod
    def whole(self, count: int) -> Any: ...

    @abstractmethod
    def product(self, response: Any) -> tuple[int | None, int, Any]:
        """(first, count, payload) of a response that carries one."""

    def joined(self, payloads: Sequence[Any]) -> Any:
        """Products put together, as `whole` has them."""
        return b"".join(payloads)

    def hear(self, response: Any) -> Heard:
        """A response in the shared words."""
        payload = response.WhichOneof("payload")
        marks = (response.session_id, response.epoch, response.seq)
        utterance = response.utterance if self.has_utterances else None
        if payload == "ended":
            ended = self.ended(response)
            error = error_of(ended.error) if ended.HasField("error") else None
            count = self.count_of(response)
            return Heard("ended", *marks, utterance, count=count, reason=FinishReason(ended.reason), error=error)
        if payload in PRODUCTS:
            return Heard("product", *marks, utterance, *self.product(response))
        return Heard(payload if payload in ("started", "reset_done") else "note", *marks, utterance)

    def ended(self, response: Any) -> stream_pb2.Ended:
        """The shared end in it."""
        return response.ended

    def count_of(self, response: Any) -> int:
        """What it says was made, counted as `product` counts."""
        return int(response.ended.sample_count)


class TtsLm(Dialect):
    name = "tts_lm"
    path = "/voicemesh.tts_lm.v1.TtsLmService/Generate"
    request, response = tts_lm_pb2.GenerateRequest, tts_lm_pb2.GenerateResponse
    stub, method = tts_lm_pb2_grpc.TtsLmServiceStub, "Generate"

    def start(self) -> dict[str, Any]:
        return {"start": tts_lm_pb2.GenerateStart()}

    def faulty_start(self) -> dict[str, Any]:
        return {"start": tts_lm_pb2.GenerateStart(voice=tts_lm_pb2.Voice(name="nobody"))}

    def piece(self, index: int) -> dict[str, Any]:
        return {"text": tts_lm_pb2.TextDelta(text=LETTERS[index % 26])}

    def whole(self, count: int) -> Any:
        return [code for frame in speak("".join(LETTERS[i % 26] for i in range(count))) for code in frame]

    def product(self, response: Any) -> tuple[int | None, int, Any]:
        frames = response.frames
        assert len(frames.codes) == 16 * frames.frame_count
        return frames.first_frame_index, frames.frame_count, list(frames.codes)

    def joined(self, payloads: Sequence[Any]) -> Any:
        return [code for payload in payloads for code in payload]

    def count_of(self, response: Any) -> int:
        return int(response.ended.frame_count)


class Codec(Dialect):
    name = "codec"
    path = "/voicemesh.codec.v1.CodecService/Decode"
    request, response = codec_pb2.DecodeRequest, codec_pb2.DecodeResponse
    stub, method = codec_pb2_grpc.CodecServiceStub, "Decode"
    supplement = None

    def kinds(self) -> list[Kind]:
        return [kind for kind in Kind if kind is not Kind.SUPPLEMENT]

    def start(self) -> dict[str, Any]:
        return {"start": codec_pb2.DecodeStart()}

    def faulty_start(self) -> dict[str, Any]:
        mulaw = stream_pb2.AudioFormat(encoding=stream_pb2.AUDIO_ENCODING_MULAW, sample_rate_hz=11025)
        return {"start": codec_pb2.DecodeStart(format=mulaw)}

    def piece(self, index: int) -> dict[str, Any]:
        codes = speak(LETTERS[index % 26])[0]
        return {"frames": codec_pb2.CodecFrames(first_frame_index=index, frame_count=1, codes=codes)}

    def whole(self, count: int) -> Any:
        return tone([speak(LETTERS[i % 26])[0] for i in range(count)])[0].tobytes()

    def product(self, response: Any) -> tuple[int | None, int, Any]:
        audio = response.audio
        assert audio.sample_count == SAMPLES_PER_FRAME * audio.frame_count
        assert len(audio.payload) == 2 * audio.sample_count
        assert audio.duration.ToNanoseconds() == round(audio.sample_count * 1e9 / 24000)
        return audio.first_sample_offset, audio.sample_count, audio.payload


class Brain(Dialect):
    name = "brain"
    path = "/voicemesh.brain.v1.BrainService/Respond"
    request, response = brain_pb2.RespondRequest, brain_pb2.RespondResponse
    stub, method = brain_pb2_grpc.BrainServiceStub, "Respond"
    has_reset = False
    has_utterances = False
    supplement = None

    def kinds(self) -> list[Kind]:
        return [kind for kind in Kind if kind not in (Kind.RESET, Kind.SUPPLEMENT)]

    def _payload(self, kind: Kind, index: int) -> dict[str, Any]:
        return {"finish": brain_pb2.Finish()} if kind is Kind.FLUSH else super()._payload(kind, index)

    def start(self) -> dict[str, Any]:
        return {"start": brain_pb2.RespondStart()}

    def faulty_start(self) -> dict[str, Any]:
        return {"start": brain_pb2.RespondStart(history=[brain_pb2.Message(text="who said that?")])}

    def piece(self, index: int) -> dict[str, Any]:
        return {"text": f"w{index} "}

    def whole(self, count: int) -> Any:
        return "".join(f"w{i} " for i in range(count)) or "Pardon? "

    def product(self, response: Any) -> tuple[int | None, int, Any]:
        return None, 1, response.text.text

    def joined(self, payloads: Sequence[Any]) -> Any:
        return "".join(payloads)

    def ended(self, response: Any) -> stream_pb2.Ended:
        return response.ended.ended

    def count_of(self, response: Any) -> int:
        return int(response.ended.completion_token_count)


class Gateway(Dialect):
    name = "gateway"
    path = "/voicemesh.gateway.v1.SpeechService/Synthesize"
    request, response = gateway_pb2.SynthesizeRequest, gateway_pb2.SynthesizeResponse
    stub, method = gateway_pb2_grpc.SpeechServiceStub, "Synthesize"
    has_utterances = False

    def start(self) -> dict[str, Any]:
        return {"start": gateway_pb2.SynthesizeStart()}

    def faulty_start(self) -> dict[str, Any]:
        speech = tts_lm_pb2.GenerateStart(voice=tts_lm_pb2.Voice(name="nobody"))
        return {"start": gateway_pb2.SynthesizeStart(speech=speech)}

    def piece(self, index: int) -> dict[str, Any]:
        return {"text": LETTERS[index % 26]}

    def whole(self, count: int) -> Any:
        return tone(speak("".join(LETTERS[i % 26] for i in range(count))))[0].tobytes()

    def product(self, response: Any) -> tuple[int | None, int, Any]:
        audio = response.audio
        assert len(audio.payload) == 2 * audio.sample_count
        return audio.first_sample_offset, audio.sample_count, audio.payload


DIALECTS: dict[str, Dialect] = {dialect.name: dialect for dialect in (TtsLm(), Codec(), Brain(), Gateway())}
