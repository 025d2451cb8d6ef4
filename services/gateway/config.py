"""What the gateway can be told, and where it finds the stages."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import Field, ValidationInfo, field_validator, model_validator

from common.voice_store import default_directory
from services.gateway.livekit.config import LiveKitConfig
from services.gateway.realtime.config import MediaConfig
from services.gateway.search import Patience
from services.gateway.session.house import Numbers
from services.gateway.session.keeping import Manner
from services.gateway.turns.settings import TurnSettings
from services.gateway.utterance import Terms


def _address_of(service: str, port: int) -> Callable[[], str]:
    """Every caller of the mesh finds a service by VOICEMESH_<SERVICE>_ADDRESS, the gateway too."""
    return lambda: os.environ.get(f"VOICEMESH_{service}_ADDRESS") or f"127.0.0.1:{port}"


class GatewayConfig(LiveKitConfig, MediaConfig):
    """gateway: what users call; it joins the stages."""

    service: ClassVar[str] = "gateway"
    faces_strangers: ClassVar[bool] = True

    port: Annotated[int, Field(ge=0, le=65535, description="Port to listen on; 0 takes a free one.")] = 50050
    brain_address: Annotated[
        str,
        Field(
            default_factory=_address_of("BRAIN", 50051),
            description="Replicas: HOST:PORT, comma-separated; dns:///NAME:PORT: all behind it.",
        ),
    ]
    tts_lm_address: Annotated[
        str,
        Field(
            default_factory=_address_of("TTS_LM", 50052),
            description="Replicas: HOST:PORT, comma-separated; dns:///NAME:PORT: all behind it.",
        ),
    ]
    codec_address: Annotated[
        str,
        Field(
            default_factory=_address_of("CODEC", 50053),
            description="Replicas: HOST:PORT, comma-separated; dns:///NAME:PORT: all behind it.",
        ),
    ]
    connect_timeout_s: Annotated[
        float, Field(gt=0, le=60, description="How long to look for a stage that answers, before speech has begun.")
    ] = 2.0
    resume_timeout_s: Annotated[
        float, Field(gt=0, le=600, description="How long to look for another replica when one was lost in mid-speech.")
    ] = 10.0
    full_timeout_s: Annotated[
        float, Field(gt=0, le=600, description="How long speech that has begun waits for a place when all are full.")
    ] = 60.0
    stall_timeout_s: Annotated[
        float,
        Field(ge=1, le=600, description="A replica that answers no probe for so long is given up, with all it speaks."),
    ] = 10.0
    packet_ramp: Annotated[
        tuple[Annotated[int, Field(ge=1, le=64)], ...],
        Field(min_length=1, description="Frames of the first packets, unless the caller says; the last repeats."),
    ] = (1, 2, 4)
    lead_frames: Annotated[
        int, Field(ge=8, le=4096, description="Frames that may be made and not yet taken by the caller.")
    ] = 128
    max_text_characters: Annotated[
        int, Field(ge=1, le=1_000_000, description="Text of one utterance, or of each part that late text closes.")
    ] = 65536
    text_timeout_s: Annotated[
        float | None,
        Field(gt=0, le=3600, description="Unless the caller says: text away for so long closes a part; absent: held."),
    ] = None

    steady_characters: Annotated[
        int | None,
        Field(
            ge=0,
            le=1_000_000,
            description="After so many an utterance ends with its sentence and goes on as the next; 0: never, "
            "absent: as the model says.",
        ),
    ] = None

    voice_store: Annotated[
        str,
        Field(default_factory=lambda: str(default_directory()), description="Directory of `voicemesh voices add`."),
    ]

    max_sessions: Annotated[
        int, Field(ge=1, le=100_000, description="Conversations held at once; more are refused at once.")
    ] = 32
    conversation_lead_frames: Annotated[
        int, Field(ge=4, le=4096, description="As lead_frames, in conversations, where little is to be made in vain.")
    ] = 8
    answer_stall_s: Annotated[
        float, Field(gt=0, le=600, description="An answer of which nothing is heard for so long is ended.")
    ] = 15.0  # longer than `stall_timeout_s`, after which a hung replica is replaced
    session_resume_s: Annotated[
        float, Field(gt=0, le=3600, description="A conversation whose connection is lost waits so long.")
    ] = 30.0
    turns: Annotated[
        dict[str, bool | float | str],
        Field(
            default_factory=dict, description="Other numbers of turns (services/gateway/turns/settings.py), as JSON."
        ),
    ]
    turn_model_file: Annotated[
        Path | None,
        Field(description="A smart-turn ONNX file that tells whether a turn is complete; absent: by words."),
    ] = None
    echo_cancellation: Annotated[
        bool, Field(description="Take our own voice out of microphones, except where a session says otherwise.")
    ] = True
    overlap_by_words: Annotated[
        bool,
        Field(
            description='Where a brain hears, "mhm" and "yes" over an answer do not end it; otherwise length decides.'
        ),
    ] = True
    history_audio_bytes: Annotated[
        int, Field(ge=0, le=12 * 2**20, description="Audio of earlier turns without transcript that the brain is told.")
    ] = 4_000_000

    paced_lead_s: Annotated[
        float, Field(ge=0, le=60, description="Sound that may lie ahead of the clock of a paced utterance.")
    ] = 0.4
    http: Annotated[bool, Field(description="Serve HTTP: OpenAI's speech endpoint, WebSocket, health.")] = True
    http_port: Annotated[
        int | None,
        Field(ge=0, le=65535, description="Port of HTTP; absent: 8080, or a free one when port is 0."),
    ] = None
    http_max_input_characters: Annotated[
        int, Field(ge=1, le=1_000_000, description="Text of one request over HTTP.")
    ] = 4096
    voice_aliases: Annotated[
        dict[str, str],
        Field(default_factory=dict, description="Stock voice names and the voices here that they mean, as JSON."),
    ]

    normalise: Annotated[
        Literal["off", "auto", "on"],
        Field(description="Where text is filtered: numbers as written, as said where models misread them, or all."),
    ] = "off"

    @property
    def terms(self) -> Terms:
        """What every utterance is told."""
        return Terms(
            packet_ramp=self.packet_ramp,
            lead_frames=self.lead_frames,
            max_text_characters=self.max_text_characters,
            text_timeout_s=self.text_timeout_s,
            steady_characters=self.steady_characters,
            paced_lead_s=self.paced_lead_s,
            normalise=self.normalise,
            patience=Patience(self.connect_timeout_s, self.resume_timeout_s, self.full_timeout_s),
        )

    @property
    def conversation_terms(self) -> Terms:
        """The same in conversations."""
        return replace(self.terms, lead_frames=self.conversation_lead_frames)

    @property
    def conversations(self) -> Manner:
        """How conversations are held."""
        numbers = Numbers(
            patience=self.terms.patience,
            history_audio_bytes=self.history_audio_bytes,
            max_sessions=self.max_sessions,
            normalise=self.normalise,
            overlap_by_words=self.overlap_by_words,
        )
        return Manner(self._turn_settings(), numbers, self.turn_model_file, self.echo_cancellation)

    def _turn_settings(self) -> TurnSettings:
        known = {"stall_s": self.answer_stall_s, "resume_s": self.session_resume_s, "drain_s": self.drain_deadline_s}
        return TurnSettings(**{**known, **self.turns})  # type: ignore[arg-type]

    @model_validator(mode="after")
    def _turns_work(self) -> GatewayConfig:
        try:
            self._turn_settings()
        except TypeError as wrong:
            raise ValueError(f"turns: {wrong}") from None
        return self

    @field_validator("http_port")
    @classmethod
    def _http_port(cls, value: int | None, info: ValidationInfo) -> int:
        return value if value is not None else (8080 if info.data.get("port") else 0)

    @field_validator("brain_address", "tts_lm_address", "codec_address")
    @classmethod
    def _addresses(cls, value: str) -> str:
        for address in value.split(","):
            host, _, port = address.strip().rpartition(":")
            if not host or not port.isdigit():
                raise ValueError(f"{address.strip()!r} is not HOST:PORT")
        return value
