"""`/v1/realtime`: a conversation over a WebSocket, sound in the events. One transport of a session, without WebRTC."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from contextlib import suppress

from aiohttp import WebSocketError, WSCloseCode, WSMsgType, web

from services.gateway.realtime.commands import MAX_MESSAGE_BYTES
from services.gateway.realtime.intake import MAX_WAITING_S, Intake
from services.gateway.realtime.link import Link
from services.gateway.realtime.settings import Offer
from services.gateway.session.ports import (
    DEFAULT_CLIENT_BUFFER_S,
    Block,
    Conversation,
    SessionEvent,
    Sessions,
    SessionSettings,
)

logger = logging.getLogger(__name__)
MAX_TEXTS = 2048  # waiting for a client that reads too slowly; then it has lost the thread and is hung up on
READY_BLOCKS = 5
_HEARTBEAT_S = 20.0
_ENDS = (WSMsgType.CLOSE, WSMsgType.CLOSING, WSMsgType.CLOSED, WSMsgType.ERROR)
_GOODBYES = (WSCloseCode.OK, WSCloseCode.GOING_AWAY)


class SocketTransport:
    """What a client hears goes into events, what it says comes out of them; the socket itself is served by `serve`."""

    kind = "websocket"

    def __init__(self, offer: Offer, settings: SessionSettings, time: Callable[[], float]) -> None:
        self._loop = asyncio.get_running_loop()
        self._time = time
        self._intake = Intake(time())
        self._texts: deque[tuple[str, bool]] = deque()  # and whether it is sound
        self._written, self._pushed, self._taken = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self._given = 0  # blocks, counted by the pacer's thread alone
        self._gone = 0  # of these, written or dropped, counted by the loop alone
        self._sounding = False
        self.closing: str | None = None
        self.has_left = False  # with a goodbye, or by breaking the protocol
        self.is_too_slow = False
        self.conversation: Conversation | None = None
        self.link = Link(self._send, offer, settings, time, hear=self._push, before_commit=self._flush)

    # What the conversation calls.

    @property
    def ready(self) -> bool:
        return self._given - self._gone < READY_BLOCKS

    @property
    def client_buffer_s(self) -> float:
        return DEFAULT_CLIENT_BUFFER_S

    def tell(self, event: SessionEvent) -> None:
        self.link.tell(event)

    def play(self, block: Block) -> None:
        """Silence needs no events."""
        if not block.is_speech:
            return
        self._given += 1
        with suppress(RuntimeError):  # the loop has ended, and with it everybody who listens
            self._loop.call_soon_threadsafe(self._sound, block)

    async def close(self, reason: str) -> None:
        self.closing = self.closing or reason
        self._written.set()

    # What the socket calls.

    async def serve(self, socket: web.WebSocketResponse, conversation: Conversation) -> None:
        """Until the client or the conversation leaves."""
        self.conversation = conversation
        self.link.opened(conversation)
        try:
            async with asyncio.TaskGroup() as tasks:
                feeding = tasks.create_task(self._feed(conversation))
                writing = tasks.create_task(self._write(socket))
                await self._read(socket)
                feeding.cancel()
                writing.cancel()
        except* ConnectionError:
            logger.debug("client lost")

    async def _read(self, socket: web.WebSocketResponse) -> None:
        while (message := await socket.receive()).type not in _ENDS:
            # What is no text is told to be no event, as everything else that is none.
            self.link.receive(message.data if message.type is WSMsgType.TEXT else "")
            while self._intake.waiting_s > MAX_WAITING_S and self.closing is None:
                self._taken.clear()
                await self._taken.wait()
        said_goodbye = message.type is WSMsgType.CLOSE and message.data in _GOODBYES
        self.has_left = said_goodbye or isinstance(message.data, WebSocketError)

    async def _write(self, socket: web.WebSocketResponse) -> None:
        while self.closing is None or self._texts:
            self._written.clear()
            while self._texts:
                text, is_sound = self._texts.popleft()
                await socket.send_str(text)
                self._gone += is_sound
            if self.closing is None:
                await self._written.wait()
        code = WSCloseCode.GOING_AWAY if self.closing == "draining" else WSCloseCode.OK
        await socket.close(code=code, message=self.closing.encode()[:120])

    async def _feed(self, conversation: Conversation) -> None:
        while True:
            due_s = self._intake.due_s(self._time())
            if due_s is None:
                self._pushed.clear()
                await self._pushed.wait()
                continue
            await asyncio.sleep(max(0.0, due_s - self._time()))
            self._pass_on(conversation, all_of_it=False)

    def _pass_on(self, conversation: Conversation, *, all_of_it: bool) -> None:
        now_s = self._time()
        samples = self._intake.take(now_s, all_of_it=all_of_it)
        if samples.size:
            conversation.hear(samples, now_s)
        self._taken.set()

    def _push(self, pcm: bytes) -> None:
        self._intake.push(pcm)
        if self.conversation is not None:  # what is due at once needs no task to wake
            self._pass_on(self.conversation, all_of_it=False)
        self._pushed.set()

    def _flush(self) -> None:
        if self.conversation is not None:
            self._pass_on(self.conversation, all_of_it=True)

    def _sound(self, block: Block) -> None:
        before = len(self._texts)
        self._sounding = True
        self.link.sound(block.epoch, block.samples.astype("<i2").tobytes())
        self._sounding = False
        if len(self._texts) == before:  # of an answer that is over
            self._gone += 1

    def _send(self, text: str) -> None:
        if len(self._texts) >= MAX_TEXTS:
            self.is_too_slow = self.closing is None
            self.closing = self.closing or "too slow"
            self._texts.clear()
        if self.closing is None:
            self._texts.append((text, self._sounding))
        self._written.set()


async def serve_realtime(
    request: web.Request, sessions: Sessions, offer: Offer, settings: SessionSettings, time: Callable[[], float]
) -> web.WebSocketResponse:
    """One client. Raises what `Sessions.open` raises, before the socket is opened.

    A client that says goodbye or breaks the protocol ends its session; one that is lost may come back with its token.
    """
    transport = SocketTransport(offer, settings, time)
    token = request.headers.get("Voicemesh-Resume-Token") or request.query.get("resume_token", "")
    conversation = sessions.open(transport, settings, resume_token=token)
    socket = web.WebSocketResponse(
        max_msg_size=2 * MAX_MESSAGE_BYTES, heartbeat=_HEARTBEAT_S, protocols=("realtime",), compress=False
    )
    try:
        await socket.prepare(request)
        await transport.serve(socket, conversation)
    finally:
        # Otherwise the conversation hung up, or another transport took over.
        if transport.closing is None or transport.is_too_slow:
            if transport.has_left:
                await conversation.close("the client left")
            else:
                conversation.suspend()
    return socket
