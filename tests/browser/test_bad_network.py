"""The page over a bad network: 50 to 150 ms of jitter, reordering and 5 % loss both ways, then an outage of 2 s."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from services.gateway.media.networks import Network
from tests.browser.chromium import DESKTOP, browser
from tests.browser.house import ANSWER, ActingSessions, house
from tests.browser.test_page import SOUNDS, click, send, silence
from tests.gateway.media.people import until
from tests.impairment.calls import RelayedWebRtc
from tests.impairment.path import Impairment
from tests.impairment.udp import UdpRelay

pytestmark = pytest.mark.timeout(120)
BAD = Impairment(delay_s=0.05, jitter_s=0.1, loss=0.05)
STATE = "document.getElementById('state').dataset.state"


async def test_a_browser_is_heard_and_hears_over_a_bad_network(tmp_path: Path) -> None:
    async with UdpRelay(up=BAD, down=BAD, seed=7) as relay, browser(silence(tmp_path)) as page:
        webrtc = RelayedWebRtc(relay, Network(interfaces=("127.0.0.1",)))
        async with house(ActingSessions(), webrtc=webrtc) as (address, _):
            await page.emulate(DESKTOP)
            await page.open(address)
            await click(page, "start")
            await page.until("voicemesh.call.isOpen")
            await send(page, "What is twelve times seven?")
            await page.until(f"{SOUNDS.format('sound')} > 0")
            await page.until(f"{STATE} === 'listening'")
            assert ANSWER in await page.run("document.getElementById('log').innerText")
            (peer,) = webrtc.peers
            await until(lambda: peer.stats.received.recovered + peer.stats.received.concealed > 2)
            assert peer.stats.received.duplicate == 0
            await until(lambda: peer.stats.expected_loss > 0.02)  # the browser reports what it misses
            await page.until("document.getElementById('stat-lost').textContent > 0")

            before = peer.stats.received.ok
            relay.blocked = True
            await asyncio.sleep(2.0)  # less than what ends a call
            relay.blocked = False
            await until(lambda: peer.stats.received.ok > before + 50)
            await send(page, "And again?")
            await page.until("document.querySelectorAll('li.it').length === 2")
            await page.until(f"{STATE} === 'listening'")
            await page.run("window.voicemesh?.call.hangUp()")
            assert page.complaints == []
