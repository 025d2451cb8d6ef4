"""Where the services are: flags over `VOICEMESH_<SERVICE>_ADDRESS` over the default ports. Dials nothing."""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping
from dataclasses import dataclass, field

from cli.errors import UsageError
from cli.security import Security, add_security_flags, check_key, security

DEFAULT_PORTS: Mapping[str, int] = {"gateway": 50050, "brain": 50051, "tts_lm": 50052, "codec": 50053}


@dataclass(frozen=True)
class Target:
    """One service and its replicas, each HOST:PORT, in the order in which they are tried."""

    service: str
    addresses: tuple[str, ...]
    security: Security = field(default_factory=Security)

    @property
    def flag(self) -> str:
        return f"--{self.service.replace('_', '-')}"

    @property
    def variable(self) -> str:
        return f"VOICEMESH_{self.service.upper()}_ADDRESS"


def add_address_flags(parser: argparse.ArgumentParser) -> None:
    """`--gateway --brain --tts-lm --codec` and how they are reached: of every command that calls a service."""
    group = parser.add_argument_group("where the services are", "HOST:PORT, comma-separated for replicas")
    for service, port in DEFAULT_PORTS.items():
        target = Target(service, ())
        group.add_argument(
            target.flag,
            dest=f"{service}_address",
            metavar="ADDRESS",
            help=f"default ${target.variable}, else 127.0.0.1:{port}",
        )
    add_security_flags(parser)


def target(args: argparse.Namespace, service: str, environment: Mapping[str, str] = os.environ) -> Target:
    """Whom to dial for one service, and how; UsageError names the flag or variable that is malformed."""
    named = Target(service, ())
    flag = getattr(args, f"{service}_address", None)
    text = flag or environment.get(named.variable) or f"127.0.0.1:{DEFAULT_PORTS[service]}"
    origin = named.flag if flag else named.variable
    addresses = tuple(_address(part.strip(), origin) for part in text.split(","))
    held = security(args, service, environment)
    for address in addresses:
        check_key(held, address)
    return Target(service, addresses, held)


def _address(text: str, origin: str) -> str:
    host, colon, port = text.rpartition(":")
    if not (host and colon and port.isdecimal() and 0 < int(port) <= 65535):
        raise UsageError(f"{origin} holds {text!r}; an address is HOST:PORT")
    return text
