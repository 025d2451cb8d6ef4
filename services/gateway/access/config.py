"""What the gateway can be told about who may call it, and how it shows itself to the stages."""

from __future__ import annotations

import ipaddress
import time
from typing import Annotated

from pydantic import Field, FilePath, SecretStr, model_validator

from common.stream_config import StreamConfig
from services.gateway.access.door import Door
from services.gateway.access.keys import KeyRecord, KeyRing, records_of_file, records_of_text
from services.gateway.access.limits import Limits
from services.gateway.access.tokens import MIN_SECRET_BYTES, Issuer, Key, LiveKitTokens, Tokens, keys_of_jwks


class AccessConfig(StreamConfig):
    """A service that strangers call."""

    insecure: Annotated[
        bool, Field(description="Serve beyond this machine without TLS or without keys: something in front has them.")
    ] = False
    api_keys_file: Annotated[
        FilePath | None, Field(description="YAML: who may call, by the SHA-256 of their keys; see docs/security.md.")
    ] = None
    api_keys: Annotated[
        SecretStr | None,
        Field(description="The same in a variable: NAME=KEY or NAME=sha256:HEX, comma-separated. Never as a flag."),
    ] = None
    jwt_secret: Annotated[
        SecretStr | None, Field(description="Shared secret of HS256 tokens, at least 32 bytes. Never as a flag.")
    ] = None
    jwt_jwks_file: Annotated[
        FilePath | None, Field(description="JWKS: public keys of tokens signed with RS256 or ES256.")
    ] = None
    jwt_issuer: Annotated[str | None, Field(description="`iss` that a token must have; absent: any.")] = None
    jwt_audience: Annotated[str | None, Field(description="`aud` that a token must have; absent: any.")] = None
    jwt_leeway_s: Annotated[
        float, Field(ge=0, le=300, description="How far clocks may differ where a token begins and ends.")
    ] = 10.0
    livekit_api_key: Annotated[
        str | None, Field(description="API key of the LiveKit server, for rooms and for livekit_tokens.")
    ] = None
    livekit_api_secret: Annotated[SecretStr | None, Field(description="Its secret. Never as a flag.")] = None
    livekit_tokens: Annotated[
        bool, Field(description="Whether room tokens of that server open conversations here, without a room.")
    ] = False
    key_max_sessions: Annotated[
        int | None, Field(ge=1, description="Streams and requests at once of a caller, unless its key says.")
    ] = None
    key_calls_per_minute: Annotated[
        float | None, Field(gt=0, description="Calls of a caller, unless its key says; absent: no limit.")
    ] = None
    key_characters_per_minute: Annotated[
        float | None, Field(gt=0, description="Text of a caller, unless its key says; absent: no limit.")
    ] = None
    allowed_origins: Annotated[
        tuple[str, ...],
        Field(description="Pages of other origins that may call, as https://HOST; the gateway's own always may."),
    ] = ()
    stage_ca_file: Annotated[
        FilePath | None, Field(description="PEM of who signs the stages; with it channels to them speak TLS.")
    ] = None
    stage_certificate_file: Annotated[
        FilePath | None, Field(description="PEM chain that the gateway shows to the stages (mTLS).")
    ] = None
    stage_key_file: Annotated[FilePath | None, Field(description="PEM private key of that certificate.")] = None
    stage_name: Annotated[
        str | None, Field(description="Name in the stages' certificates; absent: what is dialled.")
    ] = None

    @property
    def key_limits(self) -> Limits:
        """Of callers whose keys say nothing else."""
        return Limits(self.key_max_sessions, self.key_calls_per_minute, self.key_characters_per_minute)

    @property
    def wants_secret(self) -> bool:
        """Whether callers have to show a key or a token."""
        return any((self.api_keys_file, self.api_keys, self.jwt_secret, self.jwt_jwks_file, self.livekit_tokens))

    def door(self) -> Door:
        """As configured. ValueError says what of it cannot be."""
        livekit = None
        if self.livekit_tokens and self.livekit_api_key is not None and self.livekit_api_secret is not None:
            secret = self.livekit_api_secret.get_secret_value()
            livekit = LiveKitTokens(self.livekit_api_key, secret, self.key_limits, self.jwt_leeway_s)
        return Door(
            time.monotonic,
            KeyRing(self._records(), self.key_limits),
            self._tokens(),
            livekit,
            wants_certificate=self.tls_client_ca_file is not None,
            limits=self.key_limits,
        )

    def _records(self) -> list[KeyRecord]:
        records = [] if self.api_keys_file is None else records_of_file(self.api_keys_file)
        return records + ([] if self.api_keys is None else records_of_text(self.api_keys.get_secret_value()))

    def _tokens(self) -> Tokens | None:
        keys: dict[str | None, Key] = {} if self.jwt_jwks_file is None else dict(keys_of_jwks(self.jwt_jwks_file))
        if self.jwt_secret is not None:
            keys[None] = Key("HS256", self.jwt_secret.get_secret_value())
        issuer = Issuer(self.jwt_issuer, self.jwt_audience, self.jwt_leeway_s)
        return Tokens(keys, issuer, self.key_limits) if keys else None

    @model_validator(mode="after")
    def _what_opens_the_door_can(self) -> AccessConfig:
        if (self.livekit_api_key is None) != (self.livekit_api_secret is None):
            raise ValueError("livekit_api_key and livekit_api_secret go together")
        if self.livekit_tokens and self.livekit_api_key is None:
            raise ValueError("livekit_tokens needs livekit_api_key and livekit_api_secret")
        if self.jwt_secret is not None and len(self.jwt_secret.get_secret_value().encode()) < MIN_SECRET_BYTES:
            raise ValueError(f"jwt_secret needs at least {MIN_SECRET_BYTES} bytes")
        if (self.stage_certificate_file is None) != (self.stage_key_file is None):
            raise ValueError("stage_certificate_file and stage_key_file go together")
        if self.stage_ca_file is None and (self.stage_certificate_file or self.stage_name):
            raise ValueError("stage_certificate_file and stage_name need stage_ca_file")
        self.door()
        return self

    @model_validator(mode="after")
    def _is_safe_where_it_listens(self) -> AccessConfig:
        if self.insecure or is_loopback(self.host):
            return self
        missing = [] if self.tls_certificate_file is not None else ["TLS (tls_certificate_file, tls_key_file)"]
        if not self.wants_secret and self.tls_client_ca_file is None:
            missing.append("keys (api_keys_file, jwt_jwks_file, … or tls_client_ca_file)")
        if missing:
            needs = " and ".join(missing)
            raise ValueError(f"beyond this machine the gateway needs {needs}; --insecure serves without")
        return self


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches what listens there."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
