"""A stand-in for `livekit.rtc` without a server: rooms that exist in memory, with the SDK's own events and types.

What has behaviour here has the SDK's signatures, and `test_contract.py` compares them; what is only data (frames,
options, enums, errors) is the SDK's own.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from livekit import rtc
from livekit.rtc.event_emitter import EventEmitter

SOURCE_MICROPHONE = rtc.TrackSource.SOURCE_MICROPHONE


class FakeWriter:
    """A text stream that somebody in the room reads."""

    def __init__(self, attributes: dict[str, str], topic: str, sender_identity: str | None) -> None:
        self.attributes = attributes
        self.topic = topic
        self.sender_identity = sender_identity
        self.pieces: list[str] = []
        self.closing: dict[str, str] | None = None

    async def write(self, text: str) -> None:
        assert self.closing is None, "written to after it was closed"
        self.pieces.append(text)

    async def aclose(self, *, reason: str = "", attributes: dict[str, str] | None = None) -> None:
        assert self.closing is None, "closed twice"
        self.closing = attributes or {}


class FakeReader:
    """A text stream that somebody in the room writes."""

    def __init__(self, *pieces: str) -> None:
        self._pieces = pieces

    async def __aiter__(self) -> AsyncIterator[str]:
        for piece in self._pieces:
            yield piece


class FakeLocalTrackPublication:
    def __init__(self, track: Any, options: Any) -> None:
        self.track = track
        self.options = options

    @property
    def sid(self) -> str:
        return "TR_agent"


class FakeLocalParticipant:
    def __init__(self) -> None:
        self.set: list[dict[str, str]] = []
        self.published: list[FakeLocalTrackPublication] = []
        self.streams: list[FakeWriter] = []
        self.data: list[tuple[str, str]] = []

    async def publish_track(
        self,
        track: Any,
        options: Any = rtc.TrackPublishOptions(),  # noqa: B008 - the SDK's own
    ) -> FakeLocalTrackPublication:
        assert isinstance(options, rtc.TrackPublishOptions)
        self.published.append(FakeLocalTrackPublication(track, options))
        return self.published[-1]

    async def set_attributes(self, attributes: dict[str, str]) -> None:
        self.set.append(attributes)

    async def publish_data(
        self,
        payload: bytes | str,
        *,
        reliable: bool = True,
        destination_identities: list[str] = [],  # noqa: B006 - the SDK's own
        topic: str = "",
    ) -> None:
        self.data.append((topic, payload if isinstance(payload, str) else payload.decode()))

    async def stream_text(
        self,
        *,
        destination_identities: list[str] | None = None,
        topic: str = "",
        attributes: dict[str, str] | None = None,
        stream_id: str | None = None,
        reply_to_id: str | None = None,
        total_size: int | None = None,
        sender_identity: str | None = None,
    ) -> FakeWriter:
        self.streams.append(FakeWriter(attributes or {}, topic, sender_identity))
        return self.streams[-1]


class FakePublication:
    """Of somebody else."""

    def __init__(self, source: int = SOURCE_MICROPHONE) -> None:
        self._source = source
        self.asked_for = 0
        self._track: Any = None

    @property
    def source(self) -> int:
        return self._source

    @property
    def track(self) -> Any:
        return self._track

    def set_subscribed(self, subscribed: bool) -> None:
        self.asked_for += subscribed


class FakeRemoteParticipant:
    def __init__(self, identity: str, kind: int = rtc.ParticipantKind.PARTICIPANT_KIND_STANDARD) -> None:
        self._identity = identity
        self._kind = kind
        self._publications: dict[str, FakePublication] = {}

    @property
    def identity(self) -> str:
        return self._identity

    @property
    def kind(self) -> int:
        return self._kind

    @property
    def track_publications(self) -> dict[str, FakePublication]:
        return self._publications


class FakeAudioSource:
    def __init__(
        self,
        sample_rate: int,
        num_channels: int,
        queue_size_ms: int = 1000,
        loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        self.form = (sample_rate, num_channels, queue_size_ms)
        self.frames: list[rtc.AudioFrame] = []
        self.cleared = 0
        self.closed = False
        self.open_gate = asyncio.Event()
        self.open_gate.set()

    @property
    def queued_duration(self) -> float:
        return 0.02

    async def capture_frame(self, frame: rtc.AudioFrame) -> None:
        await self.open_gate.wait()
        self.frames.append(frame)

    def clear_queue(self) -> None:
        self.cleared += 1

    async def aclose(self) -> None:
        self.closed = True


class FakeLocalAudioTrack:
    def __init__(self, name: str, source: FakeAudioSource) -> None:
        self.name = name
        self.source = source

    @staticmethod
    def create_audio_track(name: str, source: Any) -> FakeLocalAudioTrack:
        return FakeLocalAudioTrack(name, source)


class FakeRemoteTrack:
    """What a person says: frames that a test puts in."""

    def __init__(self) -> None:
        self.frames: asyncio.Queue[bytes] = asyncio.Queue()


class FakeAudioStream:
    def __init__(self, track: Any, **form: Any) -> None:
        self._track = track
        self.form = form
        self.closed = False

    @staticmethod
    def from_track(
        *,
        track: Any,
        loop: asyncio.AbstractEventLoop | None = None,
        capacity: int = 0,
        sample_rate: int = 48000,
        num_channels: int = 1,
        frame_size_ms: int | None = None,
        noise_cancellation: Any = None,
        auto_close_noise_cancellation: bool = False,
    ) -> FakeAudioStream:
        form = {"capacity": capacity, "sample_rate": sample_rate, "channels": num_channels, "ms": frame_size_ms}
        return FakeAudioStream(track, **form)

    async def __aiter__(self) -> AsyncIterator[rtc.AudioFrameEvent]:
        while True:
            data = await self._track.frames.get()
            yield rtc.AudioFrameEvent(frame=rtc.AudioFrame(data, self.form["sample_rate"], 1, len(data) // 2))

    async def aclose(self) -> None:
        self.closed = True


class FakeRoom(EventEmitter[str]):
    """One connection to a room; `server` holds who else is there."""

    def __init__(self, server: FakeServer) -> None:
        super().__init__()
        self._server = server
        self._handlers: dict[str, Any] = {}
        self._local = FakeLocalParticipant()
        self.left = False
        self.options: Any = None
        self.credentials = ("", "")

    @property
    def local_participant(self) -> FakeLocalParticipant:
        return self._local

    @property
    def remote_participants(self) -> dict[str, FakeRemoteParticipant]:
        return self._server.people

    async def connect(self, url: str, token: str, options: rtc.RoomOptions = rtc.RoomOptions()) -> None:  # noqa: B008
        self.credentials, self.options = (url, token), options
        if self._server.broken:
            self._server.broken -= 1
            raise RuntimeError("a bug of the SDK")
        if self._server.refusals:
            self._server.refusals -= 1
            raise rtc.ConnectError("refused")
        self._server.rooms.append(self)

    async def disconnect(self, *, reason: int = rtc.DisconnectReason.CLIENT_INITIATED) -> None:
        self.left = True

    def register_text_stream_handler(self, topic: str, handler: Any) -> None:
        assert topic not in self._handlers, "the SDK takes one handler for each topic"
        self._handlers[topic] = handler

    # What happens in it, for tests.

    def write(self, identity: str, *pieces: str, topic: str = "lk.chat") -> None:
        self._handlers[topic](FakeReader(*pieces), identity)


class FakeServer:
    """One room and everybody's connections to it; `sdk` is what the participant under test is given."""

    def __init__(self) -> None:
        self.people: dict[str, FakeRemoteParticipant] = {}
        self.rooms: list[FakeRoom] = []
        self.refusals = 0
        self.broken = 0
        self.streams: list[FakeAudioStream] = []
        self.sdk = FakeSdk(self)

    @property
    def room(self) -> FakeRoom:
        return self.rooms[-1]

    def come(self, identity: str, *, microphone: bool = True, **kind: int) -> FakeRemoteParticipant:
        """Somebody joins, with a microphone that is on."""
        person = self.people[identity] = FakeRemoteParticipant(identity, **kind)
        if microphone:
            person.track_publications["TR_mic"] = FakePublication()
        for room in self.rooms[-1:]:
            room.emit("participant_connected", person)
        return person

    def go(self, identity: str) -> None:
        self.room.emit("participant_disconnected", self.people.pop(identity))

    def speak(self, person: FakeRemoteParticipant, track: FakeRemoteTrack) -> None:
        """The microphone that was asked for arrives."""
        publication = person.track_publications["TR_mic"]
        assert publication.asked_for, "nobody asked for it"
        self.room.emit("track_subscribed", track, publication, person)

    def lose(self, reason: int = rtc.DisconnectReason.SIGNAL_CLOSE) -> None:
        self.room.emit("disconnected", reason)


class FakeSdk:
    """The names of `livekit.rtc` that are used."""

    AudioFrame = rtc.AudioFrame
    AudioSource = FakeAudioSource
    AudioStream = FakeAudioStream
    LocalAudioTrack = FakeLocalAudioTrack
    ConnectError = rtc.ConnectError
    DisconnectReason = rtc.DisconnectReason
    ParticipantKind = rtc.ParticipantKind
    RoomOptions = rtc.RoomOptions
    TrackPublishOptions = rtc.TrackPublishOptions
    TrackSource = rtc.TrackSource

    def __init__(self, server: FakeServer) -> None:
        self._server = server

    def Room(self) -> FakeRoom:
        return FakeRoom(self._server)
