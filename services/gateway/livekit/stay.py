"""One room: joined, talked in with the first person who comes, rejoined when it was lost.

join ─▶ publish ─▶ a person comes ─▶ conversation ─▶ they leave: 30 s to come back ─▶ (dispatched: leave)
 ▲─── lost: suspend, join again, resume ───▼
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from common.errors import MeshError, UnknownName
from services.gateway.livekit import words
from services.gateway.livekit.ears import Ears
from services.gateway.livekit.transport import SOURCE_QUEUE_MS, RoomTransport
from services.gateway.session.ports import PLAYED_RATE_HZ, Conversation, Sessions, SessionSettings

logger = logging.getLogger(__name__)
RESUME_S = 30.0
CONNECT_TIMEOUT_S = 10.0
FIRST_BACKOFF_S, LAST_BACKOFF_S = 0.25, 8.0
TRACK_NAME = "voice"
Pass = Callable[[], tuple[str, str]]
"""URL and token: asked before each join, because tokens end."""


class Stay:
    """`run` until the room is left for good. `stays`: whether it waits for the next person when one has gone."""

    def __init__(
        self,
        sdk: Any,
        admission: Pass,
        sessions: Callable[[], Sessions],
        *,
        settings: SessionSettings,
        stays: bool = True,
        identity: str | None = None,
        resume_s: float = RESUME_S,
    ) -> None:
        self._sdk = sdk
        self._pass = admission
        self._sessions = sessions
        self._settings = settings
        self._stays = stays
        self._wanted_identity = identity
        self._resume_s = resume_s
        self._conversation: Conversation | None = None
        self._person = ""
        self._is_leaving = False
        self._news = asyncio.Event()
        self._room: Any = None
        self._source: Any = None
        self._lost: int | None = None  # the reason
        self._ears = Ears(sdk, lambda: self._conversation)
        self._transport: RoomTransport | None = None

    def leave(self) -> None:
        """Go, whoever is there."""
        self._is_leaving = True
        self._news.set()

    async def run(self) -> None:
        """Raises `MeshError` when no conversation may be opened, and ConnectError when the room never let us in."""
        try:
            async with asyncio.TaskGroup() as self._tasks:
                self._ears.tasks = self._tasks
                await self._be_there()
                self.leave()
                self._ears.stop()
                if self._transport is not None:
                    await self._transport.close("left")
        finally:
            if self._conversation is not None:
                await self._conversation.close("left")
            if self._room is not None:
                await self._room.disconnect()
            if self._source is not None:
                await self._source.aclose()

    async def _be_there(self) -> None:
        until_s = None
        while not self._is_leaving:
            await self._join(until_s)
            if not await self._until_left():
                return
            until_s = asyncio.get_running_loop().time() + self._resume_s
            self._suspend()

    # Coming and going.

    async def _join(self, until_s: float | None) -> None:
        """Into the room, with patience: for the first time a few tries, afterwards as long as anybody waits for us."""
        backoff_s, loop = FIRST_BACKOFF_S, asyncio.get_running_loop()
        until_s = loop.time() + CONNECT_TIMEOUT_S if until_s is None else until_s
        while True:
            room = self._listened(self._sdk.Room())
            url, token = self._pass()
            try:
                await room.connect(url, token, self._sdk.RoomOptions(auto_subscribe=False))
            except self._sdk.ConnectError as error:
                if loop.time() + backoff_s > until_s or self._is_leaving:
                    raise
                logger.warning("room not joined", extra={"why": type(error).__name__, "again_in_s": backoff_s})
                await asyncio.sleep(backoff_s)
                backoff_s = min(LAST_BACKOFF_S, backoff_s * 2)
                continue
            self._room, self._lost = room, None
            await self._publish()
            return

    async def _publish(self) -> None:
        sdk = self._sdk
        if self._source is not None:
            await self._source.aclose()
        self._source = sdk.AudioSource(PLAYED_RATE_HZ, 1, SOURCE_QUEUE_MS)
        track = sdk.LocalAudioTrack.create_audio_track(TRACK_NAME, self._source)
        options = sdk.TrackPublishOptions(source=sdk.TrackSource.SOURCE_MICROPHONE)
        self._publication = await self._room.local_participant.publish_track(track, options)
        await self._room.local_participant.set_attributes({words.STATE_ATTRIBUTE: words.IDLE})
        for person in self._room.remote_participants.values():
            self._came(person)

    def _listened(self, room: Any) -> Any:
        """The room, with our ears in it."""
        room.on("participant_connected", self._came)
        room.on("participant_disconnected", self._went)
        room.on("disconnected", self._disconnected)
        self._ears.listen(room)
        return room

    async def _until_left(self) -> bool:
        """Whether the room was lost and may be joined again."""
        while not self._is_leaving:
            if self._lost is not None:
                return self._lost not in self._final_reasons()
            self._news.clear()
            await self._news.wait()
        return False

    def _final_reasons(self) -> tuple[int, ...]:
        """Why one does not come back: told to go, or somebody else is us."""
        reason = self._sdk.DisconnectReason
        return (
            reason.CLIENT_INITIATED,
            reason.DUPLICATE_IDENTITY,
            reason.PARTICIPANT_REMOVED,
            reason.ROOM_DELETED,
            reason.ROOM_CLOSED,
        )

    def _disconnected(self, reason: int) -> None:
        self._lost = reason
        self._news.set()

    # The person.

    def _came(self, person: Any) -> None:
        kinds = self._sdk.ParticipantKind
        if person.kind not in (kinds.PARTICIPANT_KIND_STANDARD, kinds.PARTICIPANT_KIND_SIP):
            return
        if person.identity != (self._person or self._wanted_identity or person.identity):
            return
        if self._transport is not None:
            return
        try:
            self._meet(person)
        except MeshError as error:
            logger.warning("no conversation for a person in a room", extra={"reason": error.reason})
            self._person = ""
            if not self._stays:
                self.leave()

    def _meet(self, person: Any) -> None:
        self._person = person.identity
        transport = RoomTransport(self._sdk, self._room, self._source, self._publication.sid, person.identity)
        self._conversation = self._opened(transport)
        self._transport = transport
        self._tasks.create_task(self._carried(transport))
        self._ears.turn_to(person)
        self._news.set()

    def _opened(self, transport: RoomTransport) -> Conversation:
        before = self._conversation
        if before is not None:
            with suppress(UnknownName):  # it waited long enough
                return self._sessions().open(transport, self._settings, resume_token=before.resume_token)
        return self._sessions().open(transport, self._settings)

    async def _carried(self, transport: RoomTransport) -> None:
        await transport.run()
        if self._transport is transport and not self._is_leaving:  # the conversation is over, not the room
            self._transport, self._conversation, self._person = None, None, ""
            self._ears.stop()
            if not self._stays:
                self.leave()

    def _went(self, person: Any) -> None:
        if person.identity != self._person or self._transport is None:
            return
        self._suspend()
        self._tasks.create_task(self._forget_when_gone(self._conversation))

    def _suspend(self) -> None:
        self._ears.stop()
        transport, self._transport = self._transport, None
        if transport is not None and self._conversation is not None:
            self._conversation.suspend()
            transport.closed.set()

    async def _forget_when_gone(self, conversation: Conversation | None) -> None:
        """A person who does not come back is not waited for any more."""
        loop = asyncio.get_running_loop()
        until_s = loop.time() + self._resume_s
        while loop.time() < until_s and not self._is_leaving:
            with suppress(TimeoutError):
                async with asyncio.timeout_at(until_s):
                    await self._gone_or_back()
            if self._transport is not None:
                return
        if self._conversation is conversation and self._transport is None:
            self._conversation, self._person = None, ""
            if conversation is not None:
                await conversation.close("left")
            if not self._stays:
                self.leave()

    async def _gone_or_back(self) -> None:
        while self._transport is None and not self._is_leaving:
            self._news.clear()
            await self._news.wait()
