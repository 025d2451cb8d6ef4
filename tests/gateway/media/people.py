"""The two ends of a WebRTC call without a mesh: a person (aiortc) and a conversation that only plays and notes."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from aiortc import RTCConfiguration, RTCPeerConnection, RTCSessionDescription
from numpy.typing import NDArray

from services.gateway.media import ice
from services.gateway.media.downlink import Downlink
from services.gateway.media.networks import Network
from services.gateway.media.opus import Decoder, Encoder
from services.gateway.media.pacer import Pacer
from services.gateway.media.playout import Playout
from services.gateway.media.webrtc import Accepted, MediaSettings, Peer, WebRtc
from services.gateway.session.ports import Block, SessionEvent, State, Transport
from tests.impairment.path import Impairment
from tests.impairment.udp import UdpRelay

Samples = NDArray[np.int16]
LOOPBACK = Network(interfaces=("127.0.0.0/8",))
PATIENCE_S = 15.0
QUIET = MediaSettings()


async def until(fact: Callable[[], Any], patience_s: float = PATIENCE_S) -> None:
    """Wait for it to be so."""
    async with asyncio.timeout(patience_s):
        while not fact():  # noqa: ASYNC110 - what is waited for is another thread's, or the far end's
            await asyncio.sleep(0.01)


class Talk:
    """A conversation: plays what is put into its playout, notes what it hears."""

    session_id = "s"
    resume_token = "t"
    state = State.LISTENING
    epoch = 1
    turn = 0

    def __init__(self, transport: Transport, pacer: Pacer) -> None:
        self.transport = transport
        self.playout = Playout()
        self.heard: list[tuple[float, float, Samples]] = []  # now, arrived, samples
        self.texts: list[str | bytes] = []
        self.encoded: list[tuple[int, float]] = []
        self.suspended = False
        self.closed = ""
        self.blocks: list[Block] = []
        self._pacer = pacer
        self._key = pacer.add(self._tick)

    def _tick(self, slot: int, now_s: float) -> None:
        if self.transport.ready:
            self.blocks.append(block := self.playout.next_block(now_s))
            self.transport.play(block)

    def hear(self, samples: Samples, arrived_s: float) -> None:
        self.heard.append((time.monotonic(), arrived_s, samples))

    def suspend(self) -> None:
        self.suspended = True
        self._pacer.remove(self._key)

    async def close(self, reason: str) -> None:
        self.closed = reason
        self._pacer.remove(self._key)
        await self.transport.close(reason)

    def type(self, text: str) -> None: ...
    def commit(self) -> None: ...
    def clear(self) -> None: ...
    def interrupt(self) -> tuple[int, str]:
        return 0, ""

    def say(self, text: str, interruptible: bool) -> int:
        return 0

    def tool_result(self, call_id: str, content: str, failed: bool) -> None: ...
    def report_playback(self, heard_sample_offset: int | None, client_buffer_s: float | None) -> None: ...
    def report_first_audible(self, epoch: int, heard_s: float) -> None: ...
    def report_first_opus(self, epoch: int, encoded_s: float) -> None:
        self.encoded.append((epoch, encoded_s))

    def update(self, settings: Any) -> None: ...
    def attach(self, transport: Transport) -> None: ...

    @property
    def sound(self) -> Samples:
        return np.concatenate([samples for _, _, samples in self.heard]) if self.heard else np.zeros(0, np.int16)


class Texts:
    """An event link that says what happens in plain words."""

    def __init__(self, send: Callable[[str], None]) -> None:
        self.send = send
        self.talk: Talk | None = None

    def opened(self, conversation: Any) -> None:
        self.talk = conversation
        self.send(json.dumps({"opened": conversation.session_id}))

    def tell(self, event: SessionEvent) -> None:
        self.send(repr(event))

    def receive(self, message: str | bytes) -> None:
        assert self.talk is not None
        self.talk.texts.append(message)
        self.send(f"you said {message!r}")


@dataclass
class Arrival:
    """One RTP packet at the person's end."""

    at_s: float
    sequence: int
    timestamp: int
    marker: bool
    payload: bytes = field(repr=False)


class Person:
    """Speaks 20 ms at a time by a pacer of its own, notes every packet that arrives."""

    def __init__(self) -> None:
        self.said: list[float] = []  # when each block was handed over
        self.slots: list[int] = []  # and as which
        self.arrivals: list[Arrival] = []
        self.texts: list[str] = []
        self.speech: Callable[[int], Samples] = lambda number: np.zeros(480, np.int16)
        self.muted = False
        self.connection = RTCPeerConnection(RTCConfiguration(iceServers=[]))
        self._uplink = Downlink(Encoder(), time.monotonic)
        self._pacer = Pacer()
        self.channel = self.connection.createDataChannel("oai-events")
        self.channel.on("message", self.texts.append)

    async def offer(self, *, speaks: bool = True) -> str:
        with ice.using(LOOPBACK):
            if speaks:
                way = self.connection.addTransceiver(self._uplink, direction="sendrecv")
            else:
                way = self.connection.addTransceiver("audio", direction="recvonly")
            vars(way.receiver)["_RTCRtpReceiver__jitter_buffer"] = self
            await self.connection.setLocalDescription(await self.connection.createOffer())
        return str(self.connection.localDescription.sdp)

    async def take(self, answer: str) -> None:
        await self.connection.setRemoteDescription(RTCSessionDescription(answer, "answer"))
        await until(lambda: self.connection.connectionState == "connected")
        self._pacer.add(self._tick)

    def add(self, packet: Any) -> tuple[bool, None]:
        """In the place of aiortc's jitter buffer."""
        marker = bool(packet.marker)
        self.arrivals.append(Arrival(time.monotonic(), packet.sequence_number, packet.timestamp, marker, packet._data))
        return False, None

    def _tick(self, slot: int, now_s: float) -> None:
        if self._uplink.ready and not self.muted:
            self.said.append(time.monotonic())
            self._uplink.play(Block(self.speech(len(self.said) - 1), True, 1, 0))
            self.slots.append(self._uplink.slot)

    def heard(self) -> Samples:
        """What has arrived, in the order of the sender, decoded at 24 kHz; nothing concealed."""
        decoder = Decoder(24000)
        ordered = {arrival.sequence: arrival for arrival in reversed(self.arrivals)}
        return np.concatenate([decoder.decode(ordered[number].payload) for number in sorted(ordered)])

    async def close(self) -> None:
        self._pacer.close()
        async with asyncio.timeout(PATIENCE_S):
            await self.connection.close()


@dataclass
class Call:
    """Both ends, connected."""

    person: Person
    talk: Talk
    peer: Peer
    relay: UdpRelay | None


class House:
    """One gateway's media: a pacer and its peers."""

    def __init__(self, settings: MediaSettings = QUIET) -> None:
        self.pacer = Pacer()
        self.webrtc = WebRtc(LOOPBACK, settings)
        self.talks: list[Talk] = []

    def open(self, transport: Transport) -> Talk:
        self.talks.append(Talk(transport, self.pacer))
        return self.talks[-1]

    async def accept(self, offer: str) -> Accepted:
        return await self.webrtc.accept(offer, self.open, Texts)

    async def close(self) -> None:
        await self.webrtc.close()
        self.pacer.close()


@asynccontextmanager
async def house(settings: MediaSettings = QUIET) -> AsyncIterator[House]:
    built = House(settings)
    try:
        yield built
    finally:
        await built.close()


@asynccontextmanager
async def call(
    at: House,
    up: Impairment | None = None,
    down: Impairment | None = None,
    *,
    seed: int = 0,
    prepare: Callable[[Person], Awaitable[None] | None] | None = None,
    speaks: bool = True,
) -> AsyncIterator[Call]:
    """A person calls, through a relay if the network is to be bad."""
    person = Person()
    if prepare is not None:
        prepare(person)
    relay = UdpRelay(up, down, seed=seed) if up or down else None
    if relay is not None:
        await relay.__aenter__()
    try:
        offer = await person.offer(speaks=speaks)
        accepted = await at.accept(relay.offer(offer) if relay else offer)
        await person.take(relay.answer(accepted.answer) if relay else accepted.answer)
        talk = at.talks[-1]
        yield Call(person, talk, accepted.peer, relay)
    finally:
        await person.close()
        if relay is not None:
            await relay.__aexit__(None, None, None)
