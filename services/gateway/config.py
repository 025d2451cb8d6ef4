"""What the gateway can be told, and where it finds the stages."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Annotated, ClassVar

from pydantic import Field, field_validator

from common.stream_config import StreamConfig


def _address_of(service: str, port: int) -> Callable[[], str]:
    """Every caller of the mesh finds a service by VOICEMESH_<SERVICE>_ADDRESS, the gateway too."""
    return lambda: os.environ.get(f"VOICEMESH_{service}_ADDRESS") or f"127.0.0.1:{port}"


class GatewayConfig(StreamConfig):
    """gateway: what users call; it joins the stages."""

    service: ClassVar[str] = "gateway"

    port: Annotated[int, Field(ge=0, le=65535, description="Port to listen on; 0 takes a free one.")] = 50050
    tts_lm_address: Annotated[
        str,
        Field(default_factory=_address_of("TTS_LM", 50052), description="Replicas: HOST:PORT, comma-separated."),
    ]
    codec_address: Annotated[
        str,
        Field(default_factory=_address_of("CODEC", 50053), description="Replicas: HOST:PORT, comma-separated."),
    ]
    connect_timeout_s: Annotated[
        float, Field(gt=0, le=60, description="How long to wait for a stage that does not answer.")
    ] = 2.0
    packet_ramp: Annotated[
        tuple[Annotated[int, Field(ge=1, le=64)], ...],
        Field(min_length=1, description="Frames of the first packets, unless the caller says; the last repeats."),
    ] = (1, 2, 4)
    lead_frames: Annotated[
        int, Field(ge=8, le=4096, description="Frames that may be made and not yet taken by the caller.")
    ] = 128

    @field_validator("tts_lm_address", "codec_address")
    @classmethod
    def _addresses(cls, value: str) -> str:
        for address in value.split(","):
            host, _, port = address.strip().rpartition(":")
            if not host or not port.isdigit():
                raise ValueError(f"{address.strip()!r} is not HOST:PORT")
        return value
