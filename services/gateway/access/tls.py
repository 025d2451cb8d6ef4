"""TLS: of the HTTP port, and towards the stages."""

from __future__ import annotations

import ssl
from dataclasses import dataclass, field

from services.gateway.access.config import AccessConfig


@dataclass(frozen=True)
class StageTls:
    """How channels to the stages are secured. `name` is what their certificates say, where that is not what is
    dialled."""

    ca: bytes
    certificate: bytes | None = None
    key: bytes | None = field(default=None, repr=False)
    name: str | None = None


def stage_tls(config: AccessConfig) -> StageTls | None:
    """As configured; None: in the clear."""
    if config.stage_ca_file is None:
        return None
    certificate = config.stage_certificate_file
    return StageTls(
        config.stage_ca_file.read_bytes(),
        None if certificate is None else certificate.read_bytes(),
        None if config.stage_key_file is None else config.stage_key_file.read_bytes(),
        config.stage_name,
    )


def http_tls(config: AccessConfig) -> ssl.SSLContext | None:
    """The HTTP port speaks TLS when the gRPC port does, and asks for certificates when that one does."""
    if config.tls_certificate_file is None or config.tls_key_file is None:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(config.tls_certificate_file, config.tls_key_file)
    if config.tls_client_ca_file is not None:
        context.load_verify_locations(config.tls_client_ca_file)
        context.verify_mode = ssl.CERT_REQUIRED
    return context
