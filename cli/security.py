"""How services are reached that want TLS, a certificate or a key. Dials nothing.

Keys come from VOICEMESH_API_KEY or a file, never from a flag, which every process of the machine can read. A key is
shown to the gateway alone, and never in the clear beyond this machine.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from cli.errors import UsageError

KEY_VARIABLE = "VOICEMESH_API_KEY"
_TLS_VARIABLES = {
    "tls_ca_file": "VOICEMESH_TLS_CA_FILE",
    "tls_certificate_file": "VOICEMESH_TLS_CERTIFICATE_FILE",
    "tls_key_file": "VOICEMESH_TLS_KEY_FILE",
}


@dataclass(frozen=True)
class Security:
    """`ca` None with `tls`: the authorities that this machine trusts. `name`: in the certificate, where it is not what
    is dialled."""

    tls: bool = False
    ca: bytes | None = None
    certificate: bytes | None = None
    private_key: bytes | None = field(default=None, repr=False)
    name: str | None = None
    key: str | None = field(default=None, repr=False)


def add_security_flags(parser: argparse.ArgumentParser) -> None:
    """Of every command that calls a service."""
    group = parser.add_argument_group("how they are reached", f"a key or token for the gateway: ${KEY_VARIABLE}")
    group.add_argument("--tls", action="store_true", help="by TLS, with a certificate that this machine trusts")
    for name, what in (
        ("tls_ca_file", "by TLS; PEM of who signs their certificates"),
        ("tls_certificate_file", "PEM of the certificate to show, where one is asked for"),
        ("tls_key_file", "PEM of its private key"),
    ):
        group.add_argument(f"--{name.replace('_', '-')}", metavar="FILE", help=f"{what} (${_TLS_VARIABLES[name]})")
    group.add_argument("--tls-name", metavar="NAME", help="in their certificates, where it is not what is dialled")
    group.add_argument("--api-key-file", metavar="FILE", help="a file that holds the key or token")


def security(args: argparse.Namespace, service: str, environment: Mapping[str, str] = os.environ) -> Security:
    """For calls of that service. UsageError for files that cannot be read or do not belong together."""
    files = {name: _file(args, name, environment) for name in _TLS_VARIABLES}
    ca, certificate, private_key = files.values()
    if (certificate is None) != (private_key is None):
        raise UsageError("--tls-certificate-file and --tls-key-file go together")
    wanted = bool(getattr(args, "tls", False))
    tls = wanted or ca is not None or certificate is not None
    key = _key(args, environment) if service == "gateway" else None
    return Security(tls, ca, certificate, private_key, getattr(args, "tls_name", None), key)


def check_key(held: Security, address: str) -> None:
    """UsageError where the key would travel in the clear beyond this machine."""
    host = address.rpartition(":")[0].strip("[]")
    if held.key and not held.tls and not (host == "localhost" or host.startswith("127.") or host == "::1"):
        raise UsageError(f"a key would be sent to {address} in the clear: add --tls or --tls-ca-file")


def _file(args: argparse.Namespace, name: str, environment: Mapping[str, str]) -> bytes | None:
    path = getattr(args, name, None) or environment.get(_TLS_VARIABLES[name])
    return None if not path else _read(path)


def _key(args: argparse.Namespace, environment: Mapping[str, str]) -> str | None:
    path = getattr(args, "api_key_file", None)
    key = _read(path).decode("utf-8", "replace") if path else environment.get(KEY_VARIABLE, "")
    key = key.strip()
    if not key.isascii() or not key.isprintable():
        raise UsageError("the key holds what no key holds; is that the right file?")
    return key or None


def _read(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from None
