"""A relay between a WebRTC client and a gateway, on loopback; the offer and the answer are bent so that both meet it.

    client ◀──▶ near │ relay │ far ◀──▶ gateway

    async with UdpRelay(up=Impairment(loss=0.05), down=Impairment(jitter_s=0.1), seed=1) as relay:
        answer = relay.answer(await gateway(relay.offer(offer)))

Only RTP and RTCP are lost (unless `lose_all`), so that ICE and DTLS come through; everything is delayed. A browser's
candidates do not matter, mDNS names included: the relay learns the client from its first packet.
"""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Any

from tests.impairment.path import Impairment, Path

Address = tuple[str, int]
HOST = "127.0.0.1"


class UdpRelay:
    """See the module. `up` is from the client to the gateway. `blocked` loses everything, both ways, at once."""

    def __init__(
        self, up: Impairment | None = None, down: Impairment | None = None, *, seed: int = 0, lose_all: bool = False
    ) -> None:
        self.up = Path(up or Impairment(), seed)
        self.down = Path(down or Impairment(), seed + 1)
        self.blocked = False
        self._lose_all = lose_all
        self._client: Address | None = None
        self._gateway: Address | None = None
        self._near: asyncio.DatagramTransport
        self._far: asyncio.DatagramTransport
        self._flying: set[asyncio.TimerHandle] = set()

    async def __aenter__(self) -> UdpRelay:
        loop = asyncio.get_running_loop()
        self._near, _ = await loop.create_datagram_endpoint(lambda: _Side(self._from_client), local_addr=(HOST, 0))
        self._far, _ = await loop.create_datagram_endpoint(lambda: _Side(self._from_gateway), local_addr=(HOST, 0))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for handle in self._flying:
            handle.cancel()
        self._near.close()
        self._far.close()

    def offer(self, sdp: str) -> str:
        """The client's offer, with the relay in the client's place."""
        return _with_candidate(sdp, self._far.get_extra_info("sockname"))

    def answer(self, sdp: str) -> str:
        """The gateway's answer, with the relay in the gateway's place."""
        for line in sdp.splitlines():
            words = line.split()
            if line.startswith("a=candidate:") and words[2].lower() == "udp" and "." in words[4]:
                self._gateway = (words[4], int(words[5]))
                return _with_candidate(sdp, self._near.get_extra_info("sockname"))
        raise ValueError("the answer has no IPv4 candidate")

    def _from_client(self, data: bytes, sender: Address) -> None:
        self._client = sender
        self._forward(data, self.up, lambda: (self._far, self._gateway))

    def _from_gateway(self, data: bytes, sender: Address) -> None:
        self._forward(data, self.down, lambda: (self._near, self._client))

    def _forward(self, data: bytes, path: Path, route: Any) -> None:
        loop = asyncio.get_running_loop()
        is_media = bool(data) and 128 <= data[0] < 192
        if self.blocked:
            path.fate.sent += 1
            path.fate.lost += 1
            return

        def deliver() -> None:
            self._flying.discard(handle)
            transport, target = route()
            if target is not None and not transport.is_closing():
                transport.sendto(data, target)

        for at_s in path.arrivals(len(data), loop.time(), may_be_lost=is_media or self._lose_all):
            handle = loop.call_at(at_s, deliver)
            self._flying.add(handle)


class _Side(asyncio.DatagramProtocol):
    def __init__(self, received: Any) -> None:
        self._received = received

    def datagram_received(self, data: bytes, addr: Any) -> None:
        self._received(data, (addr[0], addr[1]))


def _with_candidate(sdp: str, address: Address) -> str:
    """The description with this address as the only candidate of each section that has any."""
    lines, section_has_it = [], False
    for line in sdp.replace("\r\n", "\n").rstrip("\n").split("\n"):
        if line.startswith("m="):
            section_has_it = False
        if line.startswith("a=candidate:"):
            continue
        lines.append(line)
        if line.startswith("a=ice-pwd:") and not section_has_it:
            lines.append(f"a=candidate:1 1 udp 2130706431 {address[0]} {address[1]} typ host")
            section_has_it = True
    return "\r\n".join(lines) + "\r\n"
