"""What the gateway can be told about how browsers reach its media: interfaces, advertised addresses, STUN and TURN."""

from __future__ import annotations

import json
from typing import Annotated, Any

from pydantic import Field, SecretStr, model_validator

from common.errors import MeshError
from common.stream_config import StreamConfig
from services.gateway.media.networks import IceServer, Network

_FIELDS = frozenset({"url", "username", "password", "secret"})


class MediaConfig(StreamConfig):
    """A service that browsers reach by WebRTC."""

    webrtc: Annotated[bool, Field(description="Take calls by WebRTC: the page, /v1/realtime/calls, /whip.")] = True
    media_interfaces: Annotated[
        tuple[str, ...],
        Field(description="Interfaces, addresses or networks for media; absent: all but loopback, or loopback alone."),
    ] = ()
    advertised_addresses: Annotated[
        tuple[str, ...], Field(description="Addresses that clients are told instead of our own, behind a 1:1 NAT.")
    ] = ()
    ice_servers: Annotated[
        SecretStr | None,
        Field(
            description='STUN and TURN as JSON: [{"url": "turn:HOST:PORT", "username", "password"}], or with a'
            ' "secret" that credentials are made from. Never as a flag.'
        ),
    ] = None

    @property
    def network(self) -> Network:
        """How media reaches this machine."""
        text = "[]" if self.ice_servers is None else self.ice_servers.get_secret_value()
        servers = tuple(IceServer(**one) for one in _servers(json.loads(text)))
        return Network(servers, self.advertised_addresses, self.media_interfaces)

    @model_validator(mode="after")
    def _network_is_one(self) -> MediaConfig:
        try:
            _ = self.network
        except json.JSONDecodeError:
            raise ValueError("ice_servers is not JSON") from None
        except MeshError as error:
            raise ValueError(error.message) from None
        return self


def _servers(given: Any) -> list[dict[str, str]]:
    if not isinstance(given, list) or not all(_is_server(one) for one in given):
        raise ValueError(f"ice_servers is a list of objects with url and maybe {', '.join(sorted(_FIELDS - {'url'}))}")
    return given


def _is_server(one: Any) -> bool:
    return (
        isinstance(one, dict)
        and "url" in one
        and all(name in _FIELDS and isinstance(value, str) for name, value in one.items())
    )
