"""What one person in a room says and writes → the conversation: their microphone, and the chat."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

import numpy as np

from common.errors import MeshError
from services.gateway.livekit import words
from services.gateway.session.ports import HEARD_RATE_HZ, Conversation

logger = logging.getLogger(__name__)
MAX_CHAT_CHARACTERS = 8192
HEARD_BUFFER_FRAMES = 100  # of 10 ms: a loop that stalls for longer has lost the person anyway


class Ears:
    """`tasks` is the group of who owns them; `conversation` says who listens now, if anybody does."""

    tasks: asyncio.TaskGroup

    def __init__(self, sdk: Any, conversation: Callable[[], Conversation | None]) -> None:
        self._sdk = sdk
        self._conversation = conversation
        self._identity = ""
        self._hearing: asyncio.Task[None] | None = None

    def listen(self, room: Any) -> None:
        """In that room; before it is joined."""
        room.on("track_published", self._offered)
        room.on("track_subscribed", self._subscribed)
        room.on("track_unsubscribed", self._unsubscribed)
        room.register_text_stream_handler(words.CHAT_TOPIC, self._chat)

    def turn_to(self, person: Any) -> None:
        """To that person, and to nobody else."""
        self._identity = person.identity
        for publication in person.track_publications.values():
            self._offered(publication, person)

    def stop(self) -> None:
        """Hear nothing, until turned to somebody."""
        self._identity = ""
        self._deafen()

    def _is_theirs(self, publication: Any, person: Any) -> bool:
        is_microphone = publication.source == self._sdk.TrackSource.SOURCE_MICROPHONE
        return bool(is_microphone and person.identity == self._identity)

    def _offered(self, publication: Any, person: Any) -> None:
        if self._is_theirs(publication, person):
            publication.set_subscribed(True)
            if publication.track is not None:  # subscribed before: nobody tells it again
                self._subscribed(publication.track, publication, person)

    def _subscribed(self, track: Any, publication: Any, person: Any) -> None:
        if self._is_theirs(publication, person):
            self._deafen()
            self._hearing = self.tasks.create_task(self._hear(track))

    def _unsubscribed(self, track: Any, publication: Any, person: Any) -> None:
        if self._is_theirs(publication, person):
            self._deafen()

    def _deafen(self) -> None:
        if self._hearing is not None:
            self._hearing.cancel()
            self._hearing = None

    async def _hear(self, track: Any) -> None:
        stream = self._sdk.AudioStream.from_track(
            track=track, capacity=HEARD_BUFFER_FRAMES, sample_rate=HEARD_RATE_HZ, num_channels=1, frame_size_ms=10
        )
        time_s = asyncio.get_running_loop().time
        try:
            async for event in stream:
                conversation = self._conversation()
                if conversation is not None:
                    conversation.hear(np.frombuffer(event.frame.data, np.int16).copy(), time_s())
        finally:
            await stream.aclose()

    def _chat(self, reader: Any, identity: str) -> None:
        if identity == self._identity:
            self.tasks.create_task(self._type(reader))

    async def _type(self, reader: Any) -> None:
        text = ""
        async for piece in reader:
            text += piece
            if len(text) > MAX_CHAT_CHARACTERS:
                logger.warning("a chat message is too long", extra={"characters": len(text)})
                return
        conversation = self._conversation()
        if conversation is None or not text.strip():
            return
        try:
            conversation.type(text)
        except MeshError as error:
            logger.warning("a chat message was refused", extra={"reason": error.reason})
