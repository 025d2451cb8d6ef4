"""What our network settings change in aioice, and the only file that knows it.

aioice never offers loopback, offers every interface, waits 5 s for STUN and does not say when it last heard of its
peer. `installed` puts our connection in the place of its own; `using` says whose settings hold for what is made inside.
To be removed when aioice takes addresses, a time-out and a listener as arguments (0.13 takes none).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import aiortc.rtcicetransport
import ifaddr
from aioice import Candidate
from aioice.ice import Connection, StunProtocol
from aioice.stun import Message

from services.gateway.media.networks import Network

_NETWORK: ContextVar[Network | None] = ContextVar("voicemesh_network", default=None)


class HeardConnection(Connection):
    """Knows when its peer was last heard: by media, data, or a check that shows it is there."""

    heard_s: float = 0.0

    async def get_component_candidates(
        self, component: int, addresses: list[str], timeout: float = 5
    ) -> list[Candidate]:
        """With the addresses and the patience of the network in use, if one is."""
        network = _NETWORK.get()
        if network is not None:
            addresses, timeout = network.host_addresses(own_addresses()), network.gather_s
        return await super().get_component_candidates(component, addresses, timeout)  # type: ignore[arg-type]

    def data_received(self, data: bytes, component: int) -> None:
        self.heard_s = asyncio.get_running_loop().time()
        super().data_received(data, component)

    def request_received(self, message: Message, addr: tuple[str, int], protocol: StunProtocol) -> None:
        if addr in {(pair.remote_candidate.host, pair.remote_candidate.port) for pair in self._nominated.values()}:
            self.heard_s = asyncio.get_running_loop().time()
        super().request_received(message, addr, protocol)


def own_addresses() -> list[tuple[str, str]]:
    """(interface, address) of this machine, IPv6 with a scope left out."""
    return [
        (adapter.name, ip.ip if isinstance(ip.ip, str) else ip.ip[0])
        for adapter in ifaddr.get_adapters()
        for ip in adapter.ips
        if isinstance(ip.ip, str) or ip.ip[2] == 0
    ]


def installed() -> None:
    """More than once does no harm."""
    vars(aiortc.rtcicetransport)["Connection"] = HeardConnection
    # At INFO it writes a line for every check of every pair of addresses: dozens a call, with where people are.
    logging.getLogger("aioice").setLevel(logging.WARNING)


@contextmanager
def using(network: Network) -> Iterator[None]:
    """Connections that gather their candidates inside do it by `network`."""
    token = _NETWORK.set(network)
    try:
        yield
    finally:
        _NETWORK.reset(token)
