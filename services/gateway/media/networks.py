"""Which addresses a person can reach us at: interfaces, advertised addresses, STUN and TURN. Pure; opens no socket."""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

from common.errors import InvalidRequest

LOOPBACK = "127.0.0.1"
STUN_WAIT_S = 0.3  # a STUN server that has not answered by then costs the person more than it gives
TURN_WAIT_S = 2.0  # an allocation takes two round trips


@dataclass(frozen=True)
class IceServer:
    """`stun:host:port`, `turn:host:port?transport=udp|tcp` or `turns:…`; with a `secret`, TURN's credentials are made
    from it for each session (coturn's `use-auth-secret`), otherwise they are as given."""

    url: str
    username: str = ""
    password: str = ""
    secret: str = ""

    def __post_init__(self) -> None:
        if self.url.partition(":")[0] not in ("stun", "turn", "turns"):
            raise InvalidRequest(f"{self.url!r} is neither a STUN nor a TURN address.", field="ice_servers")

    @property
    def relays(self) -> bool:
        return not self.url.startswith("stun:")

    def credentials(self, unix_s: float, lifetime_s: float = 86400.0) -> tuple[str, str]:
        """User and password; with a secret, good until `lifetime_s` from now (draft-uberti-behave-turn-rest-00)."""
        if not self.secret:
            return self.username, self.password
        user = f"{int(unix_s + lifetime_s)}" + (f":{self.username}" if self.username else "")
        digest = hmac.new(self.secret.encode(), user.encode(), hashlib.sha1).digest()
        return user, base64.b64encode(digest).decode()

    def for_client(self, unix_s: float) -> dict[str, str]:
        """As browsers take it in `RTCConfiguration.iceServers`."""
        if not self.relays:
            return {"urls": self.url}
        user, password = self.credentials(unix_s)
        return {"urls": self.url, "username": user, "credential": password}


@dataclass(frozen=True)
class Network:
    """How this machine is reached. Nothing set: by every address of its own, with no server's help."""

    ice_servers: tuple[IceServer, ...] = ()
    advertised_addresses: tuple[str, ...] = ()  # instead of our own, behind a 1:1 NAT
    interfaces: tuple[str, ...] = ()  # names (eth0), addresses or networks (10.0.0.0/8); none: all but loopback
    gather_timeout_s: float | None = None

    def __post_init__(self) -> None:
        for address in self.advertised_addresses:
            try:
                ip_address(address)
            except ValueError as error:
                raise InvalidRequest(f"{address!r} is no IP address.", field="advertised_addresses") from error

    @property
    def gather_s(self) -> float:
        """How long the answer to an offer may wait for STUN and TURN."""
        if self.gather_timeout_s is not None:
            return self.gather_timeout_s
        return TURN_WAIT_S if any(server.relays for server in self.ice_servers) else STUN_WAIT_S

    def host_addresses(self, found: Iterable[tuple[str, str]]) -> list[str]:
        """Of `(interface, address)` those to be offered. Loopback if it is named, or if there is nothing else."""
        offered = []
        for name, text in found:
            address = ip_address(text)
            named = any(_matches(rule, name, address) for rule in self.interfaces)
            if named or not (self.interfaces or address.is_loopback or address.is_link_local):
                offered.append(text)
        return offered or [LOOPBACK]

    def for_clients(self, unix_s: float) -> list[dict[str, str]]:
        """`iceServers` of the browser's side."""
        return [server.for_client(unix_s) for server in self.ice_servers]


def _matches(rule: str, name: str, address: IPv4Address | IPv6Address) -> bool:
    try:
        return address in ip_network(rule, strict=False)
    except ValueError:
        return rule == name


def advertised(sdp: str, addresses: Sequence[str]) -> str:
    """The description with our own addresses replaced by those under which others see us; ports stay as they are."""
    if not addresses:
        return sdp
    lines: list[str] = []
    for line in sdp.split("\r\n"):
        words = line.split(" ")
        if line.startswith("a=candidate:") and words[6:8] == ["typ", "host"]:
            for address in addresses:
                candidate = " ".join([*words[:4], address, *words[5:]])
                if candidate not in lines:
                    lines.append(candidate)
        elif line.startswith("c=IN "):
            version = ip_address(addresses[0]).version
            lines.append(f"c=IN IP{version} {addresses[0]}")
        else:
            lines.append(line)
    return "\r\n".join(lines)
