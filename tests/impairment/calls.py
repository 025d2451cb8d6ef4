"""A gateway's WebRTC behind a bad network: every call goes through the relay, whatever client makes it.

async with UdpRelay(up=…, down=…) as relay, house(webrtc=RelayedWebRtc(relay, network)) …
"""

from __future__ import annotations

from dataclasses import replace

from services.gateway.media.networks import Network
from services.gateway.media.webrtc import Accepted, LinkOf, Open, WebRtc
from tests.impairment.udp import UdpRelay


class RelayedWebRtc(WebRtc):
    """For one call at a time: the relay has two ends."""

    def __init__(self, relay: UdpRelay, network: Network) -> None:
        super().__init__(network)
        self._relay = relay

    async def accept(self, offer: str, open_conversation: Open, link_of: LinkOf) -> Accepted:
        accepted = await super().accept(self._relay.offer(offer), open_conversation, link_of)
        return replace(accepted, answer=self._relay.answer(accepted.answer))
