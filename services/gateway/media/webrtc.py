"""A person who comes by WebRTC. aiortc does ICE, DTLS, SRTP, RTCP and SDP; the sound on both ways is ours.

    uplink    SRTP ─▶ aiortc ─▶ tap ─▶ receive ─▶ Conversation.hear             (aiortc's own buffer: 82 ms and more)
    downlink  pacer ─▶ play ─▶ Opus ─▶ aiortc ─▶ SRTP                           (never bursts: `ready` says when)
    events    data channel `oai-events` ◀─▶ EventLink

The only file that knows aiortc's connections. Refuses to know what an event means.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Protocol

import aiortc
from aiortc import RTCConfiguration, RTCDataChannel, RTCIceServer, RTCPeerConnection, RTCSessionDescription
from aiortc.exceptions import InvalidStateError, OperationError
from aiortc.rtcdtlstransport import RTCDtlsTransport
from aiortc.rtcrtpreceiver import RTCRtpReceiver
from aiortc.rtp import is_rtcp

from common.errors import InvalidRequest, NotReady
from common.waiting import attentive_sleep
from services.gateway.media import echo, ice, opus
from services.gateway.media.downlink import Downlink
from services.gateway.media.networks import Network, advertised
from services.gateway.media.opus import Encoder
from services.gateway.media.receive import Received, Samples
from services.gateway.media.uplink import Uplink
from services.gateway.session.ports import DEFAULT_CLIENT_BUFFER_S, Block, Conversation, SessionEvent, Transport

_LOG = logging.getLogger(__name__)

CHANNEL = "oai-events"
MAX_SDP_BYTES = 1 << 16
MAX_EARLY_TEXTS = 256  # before the channel is open
MAX_BUFFERED_BYTES = 4 << 20  # then the client reads too slowly and has lost the thread
CLOSE_S = 5.0
WATCH_S = 0.5
LOOK_AGAIN_S = 0.2
UNCOLLECTED_PEERS = 8
"""Closed ones, besides as many as are open, that may wait until Python finds that nobody holds them but themselves:
aiortc ties its connections in circles, each with 0.3 MiB that Python does not count. Looking takes 0.1 to 0.3 ms per
1,000 objects, with everyone waiting."""
_JITTER_BUFFER = "_RTCRtpReceiver__jitter_buffer"
_BAD_SDP = (
    ValueError,
    KeyError,
    IndexError,
    AttributeError,
    AssertionError,
    TypeError,
    OperationError,
    InvalidStateError,
)
"""What aiortc 1.16 raises for descriptions that are none."""


class EventLink(Protocol):
    """The events of one client (`realtime.link.Link`): texts in, texts out by the `send` it was made with."""

    def opened(self, conversation: Conversation) -> None: ...
    def tell(self, event: SessionEvent) -> None: ...
    def receive(self, message: str | bytes) -> None: ...


LinkOf = Callable[[Callable[[str], None]], EventLink]
Open = Callable[[Transport], Conversation]
"""Raises a `MeshError` when there is no room (`session.ports.Sessions.open`)."""


@dataclass(frozen=True)
class MediaSettings:
    """Times in seconds."""

    lost_s: float = 4.0  # nothing at all came from a client that had been sending sound
    lost_listener_s: float = 12.0  # nor from one that never sent any: it is only heard of by checks and reports
    connect_s: float = 20.0  # for ICE and DTLS
    bitrate: int = 32000


@dataclass(frozen=True)
class PeerStats:
    """What is known of the media, for people and measures."""

    received: Received
    skipped_slots: int
    expected_loss: float
    round_trip_s: float | None
    wait_s: float


@dataclass(frozen=True)
class Accepted:
    """An offer was answered; media follows by itself."""

    answer: str
    peer: Peer
    conversation: Conversation


class WebRtc:
    """All peers of one process."""

    def __init__(self, network: Network | None = None, settings: MediaSettings | None = None) -> None:
        check()
        self.network = network or Network()
        self._settings = settings or MediaSettings()
        self._peers: set[Peer] = set()
        self._uncollected = 0

    @property
    def peers(self) -> tuple[Peer, ...]:
        return tuple(self._peers)

    async def accept(self, offer: str, open_conversation: Open, link_of: LinkOf) -> Accepted:
        """Answer an SDP offer. `InvalidRequest` for what is none, or has no Opus; what `open_conversation` raises."""
        if len(offer) > MAX_SDP_BYTES:
            raise InvalidRequest("The offer is too long.", field="sdp")
        with ice.using(self.network):
            peer = Peer(self.network, self._settings, link_of, self._forget)
            self._peers.add(peer)
            try:
                return await peer.answer(offer, open_conversation)
            except BaseException:
                await peer.close("not connected")
                raise

    def _forget(self, peer: Peer) -> None:
        self._peers.discard(peer)
        self._uncollected += 1
        if self._uncollected >= UNCOLLECTED_PEERS + len(self._peers):
            self._uncollected = 0
            gc.collect()

    async def close(self) -> None:
        """Hang up on everybody."""
        await asyncio.gather(*(peer.close("the gateway stops") for peer in self.peers))


class Peer:
    """One connection: a `Transport`."""

    kind = "webrtc"

    def __init__(
        self, network: Network, settings: MediaSettings, link_of: LinkOf, on_closed: Callable[[Peer], None]
    ) -> None:
        loop = asyncio.get_running_loop()
        self._loop = loop
        self._network = network
        self._settings = settings
        self._on_closed = on_closed
        servers = [
            RTCIceServer(server["urls"], server.get("username"), server.get("credential"))
            for server in network.for_clients(time.time())
        ]
        self._connection = RTCPeerConnection(RTCConfiguration(iceServers=servers))
        self._downlink = Downlink(Encoder(bitrate=settings.bitrate), loop.time)
        self._sender: Any = None
        self._uplink = Uplink(self._heard)
        self._channel: RTCDataChannel | None = None
        self._early: deque[str] = deque(maxlen=MAX_EARLY_TEXTS)
        self._link = link_of(self._send)
        self._conversation: Conversation | None = None
        self._watching: asyncio.Task[None] | None = None
        self._opened_s = loop.time()
        self._round_trip_s: float | None = None
        self._encoded_epoch = -1  # whose first packet was reported; the pacer's thread alone
        self._connected = False
        self._was_connected = False
        self._ending: asyncio.Task[None] | None = None  # of a conversation that never was one
        self._closing: asyncio.Task[None] | None = None

    # Answering.

    async def answer(self, offer: str, open_conversation: Open) -> Accepted:
        """See `WebRtc.accept`."""
        connection = self._connection
        connection.on("connectionstatechange", self._state_changed)
        connection.on("datachannel", self._channel_opened)
        ours = connection.addTransceiver(self._downlink, direction="sendrecv")
        ours.setCodecPreferences(
            [codec for codec in aiortc.RTCRtpSender.getCapabilities("audio").codecs if _is_opus(codec)]
        )
        try:
            await connection.setRemoteDescription(RTCSessionDescription(offer, "offer"))
            if ours.mid is None:
                raise InvalidRequest("The offer has no sound.", field="sdp")
            for other in connection.getTransceivers():
                if other is not ours:
                    other.direction = "inactive"
            setattr(ours.receiver, _JITTER_BUFFER, self._uplink)
            self._sender = ours.sender
            self._mark_spurts(ours.sender.transport)
            conversation = open_conversation(self)
            self._conversation = conversation
            await connection.setLocalDescription(await connection.createAnswer())
        except _BAD_SDP as error:
            if self._conversation is not None:
                await self._conversation.close("not connected")
            raise InvalidRequest(f"The offer cannot be answered: {error}", field="sdp") from error
        self._link.opened(conversation)
        self._watching = self._loop.create_task(self._watch(), name="webrtc-watch")
        text = advertised(connection.localDescription.sdp, self._network.advertised_addresses)
        return Accepted(text, self, conversation)

    def _mark_spurts(self, transport: Any) -> None:
        """aiortc sets the marker on every packet; receivers that set their delay anew at each would never settle."""
        send = transport._send_rtp

        async def send_marked(data: bytes) -> None:
            if not is_rtcp(data) and not self._downlink.begins_spurt:
                data = bytes([data[0], data[1] & 0x7F]) + data[2:]
            await send(data)

        transport._send_rtp = send_marked

    # What the conversation calls: Transport.

    @property
    def ready(self) -> bool:
        return self._connected and self._downlink.ready

    @property
    def client_buffer_s(self) -> float:
        """A browser's own buffers, and half a round trip."""
        return DEFAULT_CLIENT_BUFFER_S + min((self._round_trip_s or 0.0) / 2, 0.5)

    def tell(self, event: SessionEvent) -> None:
        self._link.tell(event)

    def play(self, block: Block) -> None:
        self._downlink.play(block)
        if block.is_speech and block.epoch != self._encoded_epoch and self._conversation is not None:
            self._encoded_epoch = block.epoch
            with suppress(RuntimeError):  # the loop has ended
                self._loop.call_soon_threadsafe(self._conversation.report_first_opus, block.epoch, self._loop.time())

    async def close(self, reason: str) -> None:
        """Hang up; 5 s at most. Concurrent calls wait for the same end."""
        if self._closing is None:
            self._closing = self._loop.create_task(self._close(reason), name="webrtc-close")
        await asyncio.shield(self._closing)

    async def _close(self, reason: str) -> None:
        _LOG.debug("peer closes", extra={"reason": reason})
        self._connected = False
        if self._watching is not None:
            self._watching.cancel()
        self._uplink.close()
        try:
            async with asyncio.timeout(CLOSE_S):
                await self._connection.close()
        except TimeoutError:
            _LOG.warning("a peer could not be closed in time and was left")
        finally:
            self._on_closed(self)

    @property
    def closed(self) -> bool:
        return self._closing is not None

    @property
    def stats(self) -> PeerStats:
        return PeerStats(
            received=self._uplink.counts,
            skipped_slots=self._downlink.skipped_slots,
            expected_loss=self._downlink.encoder.expected_loss,
            round_trip_s=self._round_trip_s,
            wait_s=self._uplink.wait_s,
        )

    def _heard(self, samples: Samples, arrived_s: float) -> None:
        if self._conversation is not None:
            self._conversation.hear(samples, arrived_s)

    # Events.

    def _channel_opened(self, channel: RTCDataChannel) -> None:
        if channel.label != CHANNEL or self._channel is not None:
            return
        self._channel = channel
        channel.on("message", self._link.receive)
        while self._early:
            self._send(self._early.popleft())

    def _send(self, text: str) -> None:
        channel = self._channel
        if channel is None:
            self._early.append(text)
        elif channel.readyState == "open":
            if channel.bufferedAmount > MAX_BUFFERED_BYTES:
                self._lose("it reads too slowly")
                return
            channel.send(text)

    # Life.

    def _state_changed(self) -> None:
        state = self._connection.connectionState
        self._connected = state == "connected"
        self._was_connected = self._was_connected or self._connected
        if state in ("failed", "closed"):
            self._lose(f"connection {state}")

    def _lose(self, why: str) -> None:
        """The person is gone, perhaps to come back: the conversation waits, this connection does not."""
        if self._closing is not None:
            return
        _LOG.info("peer lost", extra={"reason": why})
        self._closing = self._loop.create_task(self._close(why), name="webrtc-close")
        conversation = self._conversation
        if conversation is None:
            return
        if self._was_connected or conversation.turn:
            conversation.suspend()
        else:  # an offer that nobody followed must not keep a place for half a minute more
            self._ending = self._loop.create_task(conversation.close(why), name="webrtc-end")

    async def _watch(self) -> None:
        """Until closed: whether the person is still there, and how the network treats what we send."""
        while True:
            await asyncio.sleep(WATCH_S)
            now_s = self._loop.time()
            if not self._connected:
                if now_s - self._opened_s > self._settings.connect_s:
                    self._lose("never connected")
                continue
            if self._is_silent() and await self._is_silent_still():
                self._lose("silent")
            await self._take_reports()

    def _is_silent(self) -> bool:
        limit_s = self._settings.lost_listener_s if self._uplink.last_s is None else self._settings.lost_s
        return self._loop.time() - self._heard_s() > limit_s

    async def _is_silent_still(self) -> bool:
        """It may be this process that stood still: what came meanwhile is looked at first."""
        await attentive_sleep(LOOK_AGAIN_S)
        return self._is_silent()

    def _heard_s(self) -> float:
        """When anything came from the other end: sound, reports, events, or a check of the path."""
        path = self._sender.transport.transport._connection
        return max(getattr(path, "heard_s", 0.0), self._uplink.last_s or 0.0, self._opened_s)

    async def _take_reports(self) -> None:
        for report in (await self._sender.getStats()).values():
            if report.type != "remote-inbound-rtp":
                continue
            self._round_trip_s = report.roundTripTime
            lost = report.fractionLost / 256  # aiortc gives the byte of RFC 3550
            encoder = self._downlink.encoder
            encoder.expected_loss = max(lost, encoder.expected_loss + 0.1 * (lost - encoder.expected_loss))


def check() -> None:
    """All that calls need is here, loaded before the first one: libopus, and an aiortc whose jitter buffer and sender
    are where we reach into them. `NotReady` where something is not."""
    if _JITTER_BUFFER not in RTCRtpReceiver.__init__.__code__.co_names or not hasattr(RTCDtlsTransport, "_send_rtp"):
        raise NotReady(f"aiortc {aiortc.__version__} is made otherwise than 1.16, which is known to work.")
    for codec in filter(_is_opus, aiortc.codecs.CODECS["audio"]):
        codec.parameters = {"minptime": 10, "useinbandfec": 1}  # otherwise no browser sends redundancy
    for library in ("aioice", "aiortc"):
        logging.getLogger(library).setLevel(logging.WARNING)  # they tell of every candidate, addresses and all
    opus.load()
    echo.library()
    ice.installed()


def _is_opus(codec: Any) -> bool:
    return bool(codec.mimeType == "audio/opus")
