"""What the gateway can be told about LiveKit."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, SecretStr, model_validator

from services.gateway.access.config import AccessConfig


class LiveKitConfig(AccessConfig):
    """A service that may be a participant of rooms."""

    livekit_url: Annotated[
        str | None, Field(pattern="^wss?://", description="LiveKit server, as wss://HOST; with it rooms are joined.")
    ] = None
    livekit_room: Annotated[
        str | None, Field(min_length=1, description="Room to join and stay in; absent: those that are dispatched.")
    ] = None
    livekit_token: Annotated[
        SecretStr | None,
        Field(description="Token of one room, in the place of API key and secret. Never as a flag."),
    ] = None
    livekit_agent_name: Annotated[
        str, Field(description="Name by which rooms ask for this agent; empty: every new room gets it.")
    ] = ""
    livekit_identity: Annotated[str, Field(pattern=r"^[\w.-]{1,64}$", description="Who we are in a room.")] = (
        "voicemesh"
    )
    livekit_max_rooms: Annotated[
        int, Field(ge=1, le=1000, description="Dispatched rooms at once; at this number others are offered them.")
    ] = 10

    @model_validator(mode="after")
    def _can_join(self) -> LiveKitConfig:
        if self.livekit_url is not None and self.livekit_token is None and self.livekit_api_key is None:
            raise ValueError("livekit_url needs livekit_token, or livekit_api_key and livekit_api_secret")
        return self
