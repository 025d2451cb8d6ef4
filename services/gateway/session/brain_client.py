"""One answer of the brain: on one replica, and on the next when that one is lost.

The stream is opened while the person still speaks, so that as little as possible is left to do when they stop. What
they said and what was answered is kept: another replica is told all of it and goes on after the last word
(`partial_answer`). Refuses to know turns, epochs of the session and speech.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import Protocol

from voicemesh.brain.v1 import brain_pb2
from voicemesh.stream.v1 import stream_pb2

from common.errors import InvalidRequest, MeshError, NotReady
from common.status import error_of
from common.stream import FinishReason
from services.gateway.clients import Replica, Stages, StageStream
from services.gateway.search import Patience, Search
from services.gateway.session.tool_book import ToolBook

logger = logging.getLogger(__name__)
CANCEL_S = 0.1  # a brain that does not acknowledge a stop within this is hung up on
PIECE_BYTES = 64 * 1024
MAX_AUDIO_S = 120.0
BYTES_PER_S = 32_000  # 16 kHz, 16 bit
Stream = StageStream[brain_pb2.RespondRequest, brain_pb2.RespondResponse]


class Listener(Protocol):
    """Who waits for the answer. Nothing is told after `cancel`, and nothing after `brain_ended`."""

    def brain_started(self, tokenizer_fingerprint: str) -> None: ...
    def brain_transcript(self, text: str, final: bool) -> None: ...
    def brain_text(self, text: str, ids: Sequence[int]) -> None: ...
    def brain_tool_call(self, call: brain_pb2.ToolCall) -> None: ...
    def brain_ended(self, reason: FinishReason, error: MeshError | None) -> None: ...


class BrainAnswer:
    """`start` is what the turn builds on. Somebody must `run` it; the other methods never wait."""

    def __init__(
        self,
        stages: Stages,
        session_id: str,
        start: brain_pb2.RespondStart,
        patience: Patience,
        listener: Listener,
        tools: ToolBook | None = None,
    ) -> None:
        self._stages = stages
        self._session_id = session_id
        self._start = start
        self._listener = listener
        self._tools = ToolBook() if tools is None else tools
        self._search = Search(stages.brain, session_id, patience)
        self._stream: Stream | None = None
        self._time = asyncio.get_running_loop().time
        self._audio = bytearray()
        self._words = ""
        self._is_finished = False
        self._is_cancelled = False
        self._is_over = False
        self._answer: list[str] = []
        self._asked: set[str] = set()  # calls that the replica in use waits for
        self._task: asyncio.Task[None] | None = None
        self._left: Stream | None = None  # its last word was heard
        self._cancelled_s = 0.0
        self.cancel_s: float | None = None
        """How long the brain took to acknowledge a cancel."""

    # What the person does. Nothing is sent while no replica listens: the next one is told everything.

    def hear(self, pcm: bytes) -> None:
        """More of what they say: 16 kHz, one channel, 16 bit. `InvalidRequest` when it is too much for a turn."""
        if len(self._audio) + len(pcm) > MAX_AUDIO_S * BYTES_PER_S:
            raise InvalidRequest(f"A spoken turn lasts at most {MAX_AUDIO_S:g} s.", reason="TOO_LARGE")
        self._audio += pcm
        self._send_audio(pcm)

    def type(self, text: str) -> None:
        """More of what they write."""
        self._words += text
        self._tell(brain_pb2.RespondRequest(text=text))

    def finish(self) -> None:
        """The turn is complete: answer."""
        if not self._is_finished:
            self._is_finished = True
            self._tell(brain_pb2.RespondRequest(finish=brain_pb2.Finish()))

    def confirm(self) -> None:
        """The turn will not be taken back: no replica that comes to it later may make it wait."""
        self._start.speculative = False

    def tool_result(self, call_id: str, content: str, failed: bool) -> None:
        """What a tool answered; that a call of that id is open is the caller's business."""
        for result in self._tools.answered(call_id, content, failed):
            if result.id in self._asked:  # not by a replica that is gone
                self._tell(brain_pb2.RespondRequest(tool_result=result))

    def cancel(self) -> None:
        """Nobody wants the answer. The brain is told, and hung up on when it does not say in time that it stopped."""
        if self._is_cancelled or self._is_over:
            return
        self._is_cancelled = True
        self._cancelled_s = self._time()
        if self._stream is None:
            if self._task is not None:
                self._task.cancel()
            return
        self._stream.send(brain_pb2.RespondRequest(stop=stream_pb2.Stop()))
        asyncio.get_running_loop().call_later(CANCEL_S, self._insist, self._stream)

    @property
    def audio(self) -> bytes:
        """All that was heard of the person in this turn."""
        return bytes(self._audio)

    def _insist(self, stream: Stream) -> None:
        if self._stream is stream:
            logger.info("brain did not acknowledge a stop in time", extra={"address": stream.replica.address})
            stream.give_up()

    def _tell(self, request: brain_pb2.RespondRequest) -> None:
        if self._stream is not None and not self._is_cancelled:
            self._stream.send(request)

    def _send_audio(self, pcm: bytes) -> None:
        for begin in range(0, len(pcm), PIECE_BYTES):
            self._tell(brain_pb2.RespondRequest(audio=pcm[begin : begin + PIECE_BYTES]))

    # What the stage does.

    async def run(self) -> None:
        """Think to the end. Never raises what went wrong: `brain_ended` says it."""
        if self._is_cancelled:
            return
        self._task = asyncio.current_task()
        try:
            reason, error = await self._think(), None
        except MeshError as lost:
            reason, error = FinishReason.FAILED, lost
        self._is_over = True
        if not self._is_cancelled:
            self._listener.brain_ended(reason, error)
        if self._left is not None:
            await self._left.leave()

    async def _think(self) -> FinishReason:
        """Raises the `MeshError` that nobody could help with."""
        error: MeshError | None = None
        while True:
            replica = await self._search.next(error)
            try:
                return await self._listen(replica)
            except MeshError as lost:
                if self._is_cancelled:
                    return FinishReason.CANCELLED
                error = lost
                facts = {"address": replica.address, "reason": lost.reason, "pieces": len(self._answer)}
                logger.warning("brain refused or lost", extra=facts)

    async def _listen(self, replica: Replica) -> FinishReason:
        replica.begin()
        stream = self._stream = self._stages.respond(replica)
        reason: FinishReason | None = None
        try:
            self._open(stream)
            while reason is None:
                reason = self._hear(await stream.receive())
        finally:
            self._stream = None
            replica.end()
            if reason is None:
                stream.hang_up()
        self._left = stream
        return reason

    def _open(self, stream: Stream) -> None:
        start = brain_pb2.RespondStart()
        start.CopyFrom(self._start)
        start.partial_answer += "".join(self._answer)
        self._asked.clear()
        stream.send(brain_pb2.RespondRequest(session_id=self._session_id, start=start))
        self._send_audio(bytes(self._audio))
        if self._words:
            self._tell(brain_pb2.RespondRequest(text=self._words))
        if self._is_finished:
            self._tell(brain_pb2.RespondRequest(finish=brain_pb2.Finish()))

    def _hear(self, response: brain_pb2.RespondResponse) -> FinishReason | None:
        payload = response.WhichOneof("payload")
        if payload == "ended":
            return self._ended(response.ended.ended)
        if self._is_cancelled:
            return None
        if payload == "started":
            self._search.admitted()
            self._listener.brain_started(response.started.tokenizer_fingerprint)
        elif payload == "transcript":
            self._listener.brain_transcript(response.transcript.text, response.transcript.final)
        elif payload == "text":
            self._search.progressed()
            self._answer.append(response.text.text)
            self._listener.brain_text(response.text.text, response.text.ids)
        elif payload == "tool_call":
            self._called(response.tool_call)
        return None

    def _called(self, call: brain_pb2.ToolCall) -> None:
        """Another replica, or another attempt, may want what was called already: nothing is done twice."""
        self._search.progressed()
        self._asked.add(call.id)
        known = self._tools.result(call)
        if known is None:
            self._listener.brain_tool_call(call)
        else:
            self._tell(brain_pb2.RespondRequest(tool_result=known))

    def _ended(self, ended: stream_pb2.Ended) -> FinishReason:
        """The brain's last word; raises it when another replica may do better."""
        if self._is_cancelled:
            self.cancel_s = self._time() - self._cancelled_s
            return FinishReason.CANCELLED
        if ended.HasField("error"):
            raise error_of(ended.error)
        reason = FinishReason(ended.reason)
        if reason is FinishReason.CANCELLED:  # not by us: it is shutting down
            raise NotReady("A brain gave up.", reason="DRAINING")
        return reason
