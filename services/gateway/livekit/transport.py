"""A person in a LiveKit room, as a conversation meets them. Knows the SDK's objects that it is given, no room.

Sound leaves in blocks of 20 ms through the SDK's source, which holds 40 ms at most: what was cut is silent that soon.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections import deque
from typing import Any

from services.gateway.livekit import words
from services.gateway.realtime.events import Narrator
from services.gateway.session.ports import (
    BLOCK_SAMPLES,
    DEFAULT_CLIENT_BUFFER_S,
    PLAYED_RATE_HZ,
    Block,
    PlayoutStopped,
    SessionEvent,
    StateChanged,
    Transcript,
)

logger = logging.getLogger(__name__)
SOURCE_QUEUE_MS = 20
"""The SDK's source holds up to twice that, and takes more when less than that is left."""
MAX_PENDING = 2
MAX_EVENTS = 256


class RoomTransport:
    """`run` it beside the conversation. `sdk` is `livekit.rtc`, or what stands for it; `source` and `track_id` are what
    was published; `identity` is the person's."""

    kind = "livekit"

    def __init__(self, sdk: Any, room: Any, source: Any, track_id: str, identity: str) -> None:
        self._sdk = sdk
        self._room = room
        self._source = source
        self._track_id = track_id
        self._identity = identity
        self._loop = asyncio.get_running_loop()
        self._pending: deque[Block] = deque()
        self._has_sound = asyncio.Event()
        self._has_news = asyncio.Event()
        self._narrator = Narrator(over_webrtc=True)
        self._events: deque[dict[str, Any]] = deque(maxlen=MAX_EVENTS)
        self._subtitles = words.Subtitles()
        self._writer: Any = None
        self._state = ""
        self._told_state = ""
        self.closed = asyncio.Event()
        self.close_reason = ""

    # What the conversation does.

    @property
    def ready(self) -> bool:
        """Asked by the pacer's thread."""
        return len(self._pending) < MAX_PENDING

    @property
    def client_buffer_s(self) -> float:
        """What lies in the source, and what in the network and the other end."""
        return float(self._source.queued_duration) + DEFAULT_CLIENT_BUFFER_S

    def play(self, block: Block) -> None:
        """From the pacer's thread."""
        if self.closed.is_set() or not self.ready:
            return
        self._pending.append(block)
        self._loop.call_soon_threadsafe(self._has_sound.set)

    def tell(self, event: SessionEvent) -> None:
        """What waits for the room to take it is bounded: the latest of each text and state, and the last events."""
        if isinstance(event, PlayoutStopped) and event.cleared:
            self._pending.clear()
            self._source.clear_queue()
        if isinstance(event, StateChanged):
            self._state = words.agent_state(event.state)
        elif isinstance(event, Transcript):
            self._subtitles.take(event)
        self._events.extend(self._narrator.tell(event))
        self._has_news.set()

    async def close(self, reason: str) -> None:
        """The conversation is over, or somebody else carries it."""
        self.close_reason = self.close_reason or reason
        self._pending.clear()
        self.closed.set()

    # What happens beside it.

    async def run(self) -> None:
        """Carry sound and words to the room until closed. Raises nothing that the SDK raises: a room that takes nothing
        any more is told by its events."""
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(work) for work in (self._carry_sound(), self._carry_words())]
            await self.closed.wait()
            for task in tasks:
                task.cancel()

    async def _carry_sound(self) -> None:
        while True:
            await self._has_sound.wait()
            self._has_sound.clear()
            while self._pending:
                block = self._pending[0]
                data = block.samples.tobytes()
                frame = self._sdk.AudioFrame(data, PLAYED_RATE_HZ, 1, len(data) // 2)
                await self._said(self._source.capture_frame(frame))
                if self._pending and self._pending[0] is block:  # it may have been cut meanwhile
                    self._pending.popleft()

    async def _carry_words(self) -> None:
        while True:
            await self._has_news.wait()
            self._has_news.clear()
            if self._state != self._told_state:
                self._told_state = self._state
                await self._said(self._room.local_participant.set_attributes({words.STATE_ATTRIBUTE: self._state}))
            while (passage := self._subtitles.next()) is not None:
                await self._said(self._send(passage))
            while self._events:
                payload = json.dumps(self._events.popleft(), ensure_ascii=False)
                await self._said(self._room.local_participant.publish_data(payload, topic=words.EVENTS_TOPIC))

    async def _send(self, passage: words.Passage) -> None:
        writer = None if passage.opens or passage.user else self._writer
        if writer is None:
            attributes = {
                words.SEGMENT_ID: passage.segment_id,
                words.IS_FINAL: str(passage.final).lower(),
                **({} if passage.user else {words.TRACK_ID: self._track_id}),
            }
            writer = await self._room.local_participant.stream_text(
                topic=words.TRANSCRIPTION_TOPIC,
                attributes=attributes,
                sender_identity=self._identity if passage.user else None,
            )
        if not passage.user:
            self._writer = None if passage.closes else writer
        if passage.text:
            await writer.write(passage.text)
        if passage.closes:
            await writer.aclose(attributes={words.IS_FINAL: str(passage.final).lower()})

    async def _said(self, call: Any) -> None:
        try:
            await call
        except Exception as error:  # the SDK raises bare `Exception` for a room that is gone
            logger.debug("the room took nothing", extra={"why": type(error).__name__})


assert BLOCK_SAMPLES * 1000 == PLAYED_RATE_HZ * 20, "the source's queue is counted in blocks of 20 ms"
