"""One utterance as its reader and writer see it: text in, events out. Lives on the event loop and never blocks.

Refuses to know the device: everything it wants done it leaves with the loop's commands.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator

from common.errors import InvalidRequest, OutOfOrder
from common.stream import FinishReason
from services.tts_lm import commands as device
from services.tts_lm.admission import check_ids
from services.tts_lm.commands import Done, Frames
from services.tts_lm.loop import Loop
from services.tts_lm.model.repertoire import Repertoire
from services.tts_lm.model.streaming_text import StreamingText
from services.tts_lm.model.tokenizer import Tokenizer
from services.tts_lm.sequence import Sequence
from services.tts_lm.types import Ended, Event, FrameBatch, Started, TextItem


class TalkerUtterance:
    """One utterance as its reader and writer see it; implements `Utterance`."""

    def __init__(
        self,
        sequence: Sequence,
        loop: Loop,
        tokenizer: Tokenizer,
        repertoire: Repertoire | None,
        max_characters: int,
        *,
        hit: bool,
    ) -> None:
        self._sequence, self._loop, self._tokenizer = sequence, loop, tokenizer
        self._text = StreamingText(tokenizer, repertoire)
        self._characters_left = max_characters
        self._kind: type[str] | type[int] | None = None
        self._flushed = self._cancelled = self._done = False
        self._events: deque[Event] = deque([Started(sequence.sampling.seed, prefix_cache_hit=hit)])
        self._arrived = asyncio.Event()
        self._first_text_s: float | None = None
        self._first_frame_s: float | None = None
        self._unreported = self._delivered = 0

    @property
    def sequence(self) -> Sequence:
        """What the device's thread knows of it; to be read only."""
        return self._sequence

    def feed(self, item: TextItem) -> None:
        if self._flushed:
            raise OutOfOrder("text came after flush")
        kind = str if isinstance(item, str) else int
        if self._kind not in (None, kind):
            raise InvalidRequest("one utterance takes its text as strings or as token ids, never both")
        if len(item) > self._characters_left:
            raise InvalidRequest("the text of this utterance is too long; speak it as several utterances")
        if not isinstance(item, str):
            check_ids(item, self._tokenizer)
        self._kind = kind
        self._characters_left -= len(item)
        if self._done or not item:
            return
        if self._first_text_s is None:
            self._first_text_s = time.perf_counter()
        ids = self._text.feed(item) if isinstance(item, str) else tuple(item)
        if ids:
            self._loop.commands.put(device.Text(self._sequence, ids, self._loop.now_s()))

    def flush(self) -> None:
        if not self._flushed:
            self._flushed = True
            self._loop.commands.put(device.Text(self._sequence, self._text.finish(), self._loop.now_s(), finished=True))

    def credit(self, frames: int) -> None:
        if frames < 0:
            raise InvalidRequest(f"credit is {frames} frames; it can only be added")
        self._loop.commands.put(device.Credit(self._sequence, frames))

    def cancel(self) -> None:
        if self._cancelled or self._done:
            return
        self._cancelled = True
        self._events = deque(event for event in self._events if isinstance(event, Started))
        self._loop.commands.put(device.Cancel(self._sequence))

    def on_frames(self, event: Frames) -> None:
        if self._cancelled:
            return
        if self._first_frame_s is None:
            self._first_frame_s = event.produced_at_s
        packet = event.packet
        offset = self._text.progress.offset(packet.text_token_count) if self._kind is str else None
        batch = FrameBatch(
            packet.first_frame_index, packet.codes, packet.text_token_count, event.produced_time_s, offset
        )
        self._events.append(batch)
        self._arrived.set()

    def on_done(self, event: Done) -> None:
        sequence = self._sequence
        reason = FinishReason.CANCELLED if self._cancelled else event.reason
        first = 0.0
        if self._first_frame_s is not None and self._first_text_s is not None:
            first = self._first_frame_s - self._first_text_s
        self._events.append(
            Ended(
                reason=reason,
                error=event.error if reason is FinishReason.FAILED else None,
                text_token_count=sequence.text_token_count(),
                # After a cancel the reader counts what reached it; frames still under way are nobody's.
                frame_count=self._delivered if self._cancelled else sequence.produced_count,
                time_to_first_s=first,
                compute_s=sequence.compute_s,
            )
        )
        self._done = True
        self._arrived.set()

    async def __aiter__(self) -> AsyncIterator[Event]:
        while True:
            while not self._events:
                self._arrived.clear()
                await self._arrived.wait()
            event = self._events.popleft()
            if isinstance(event, FrameBatch):
                self._taken(len(event.codes))
            yield event
            if isinstance(event, Ended):
                return

    def _taken(self, frames: int) -> None:
        """Tell the loop in larger lots that the reader keeps up."""
        self._delivered += frames
        self._unreported += frames
        if self._unreported * 2 >= self._sequence.terms.unread_frame_limit and not self._done:
            self._loop.commands.put(device.Read(self._sequence, self._unreported))
            self._unreported = 0
