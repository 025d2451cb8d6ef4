"""The page's server over conversations that play a part: words, tones and milestones of a script, real WebRTC.

For what the page does with what it is told; whether a conversation tells the right things is tested elsewhere.
`python -m tests.browser.house` serves it for a look.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
from aiohttp import web

from common.errors import AccessDenied, MeshError
from common.stream import FinishReason
from common.telemetry import Milestone
from services.gateway.config import GatewayConfig
from services.gateway.http import _faults
from services.gateway.media.networks import Network
from services.gateway.media.pacer import Pacer
from services.gateway.media.webrtc import WebRtc
from services.gateway.realtime.board import LatencyBoard
from services.gateway.realtime.routes import RealtimeRoutes
from services.gateway.session.ports import (
    BLOCK_S,
    BLOCK_SAMPLES,
    AnswerEnded,
    AnswerStarted,
    Block,
    PlayoutStarted,
    PlayoutStopped,
    SessionEvent,
    SessionSettings,
    State,
    StateChanged,
    Transcript,
    Transport,
    TurnCommitted,
    TurnMeasured,
    UserSpeechStarted,
    UserSpeechStopped,
)
from tests.gateway.realtime.house import NotedConversation, NotedSessions

LOUD = 1500  # of 32768
QUIET_S = 0.3
WORD_S = 0.24
STORY = (
    "Once upon a time, in a harbour town where the fog came in like a slow animal, there lived a clockmaker who could "
    "hear the sea in every spring she wound. One evening a stranger brought her a watch that ran backwards."
)
ANSWER = "Twelve times seven is eighty-four."
MILESTONES = (0.0, 0.212, 0.231, 0.262, 0.318, 0.341, 0.352, 0.361)


class ActingConversation(NotedConversation):
    """Answers what is typed or said aloud with `ANSWER`, or with `STORY` where a story is asked for."""

    board: LatencyBoard
    pacer: Pacer

    def __init__(self, transport: Transport, settings: SessionSettings, session_id: str = "session") -> None:
        super().__init__(transport, settings, session_id)
        self._loop = asyncio.get_running_loop()
        self._answering: asyncio.Task[None] | None = None
        self._loud_s: float | None = None
        self._heard_s = 0.0
        self._text, self._said = "", 0
        self._blocks: deque[Block] = deque()
        self._tick_key = self.pacer.add(self._tick)
        self._change(State.LISTENING)

    def hear(self, samples: Any, arrived_s: float) -> None:
        self._heard_s += len(samples) / 16000
        now_s, is_loud = self._loop.time(), bool(np.abs(samples).max(initial=0) > LOUD)
        if is_loud and self._loud_s is None:
            self.interrupt()
            self.turn += 1
            self.tell(UserSpeechStarted(self.turn, self._heard_s))
            self._change(State.USER_SPEAKING)
        if is_loud:
            self._loud_s = now_s
        elif self._loud_s is not None and now_s - self._loud_s > QUIET_S:
            self._loud_s = None
            self.tell(UserSpeechStopped(self.turn, self._heard_s), TurnCommitted(self.turn, False))
            self.tell(Transcript(self.turn, True, "what is twelve times seven", True))
            self._answer(ANSWER)

    def type(self, text: str) -> None:
        super().type(text)
        self.interrupt()
        self.turn += 1
        self.tell(TurnCommitted(self.turn, True))
        self._answer(STORY if "story" in text else ANSWER)

    def interrupt(self) -> tuple[int, str]:
        super().interrupt()
        if self._answering is None or self._answering.done():
            return 0, ""
        self._answering.cancel()
        self._blocks.clear()
        heard = self._text[: self._said]
        self.tell(PlayoutStopped(self.epoch, True), Transcript(self.turn, False, self._text, False, self._said))
        self.tell(AnswerEnded(self.turn, self.epoch, FinishReason.CANCELLED, 12000, heard))
        self._change(State.LISTENING)
        return 12000, heard

    def report_first_audible(self, epoch: int, heard_s: float) -> None:
        super().report_first_audible(epoch, heard_s)
        self._measure(Milestone.CLIENT_FIRST_AUDIBLE, 0.361 + 0.06)

    def attach(self, transport: Transport) -> None:
        before = self.transport
        super().attach(transport)
        self._loop.create_task(before.close("replaced"))
        self._change(State.LISTENING)

    async def close(self, reason: str) -> None:
        self.pacer.remove(self._tick_key)
        if self._answering is not None:
            self._answering.cancel()
        await super().close(reason)

    def _answer(self, text: str) -> None:
        self.interrupt()
        self.epoch += 1
        self._text, self._said = text, 0
        self._answering = self._loop.create_task(self._speak(text))

    def tell(self, *events: SessionEvent) -> None:
        super().tell(*events)
        for event in events:
            self.board.tell(self.session_id, self.transport.kind, event, time.time())

    def _change(self, state: State) -> None:
        self.state = state
        self.tell(StateChanged(state, self.turn, self.epoch))

    def _measure(self, *extra: Any) -> None:
        milestones = dict(zip(Milestone, MILESTONES, strict=False))
        self.tell(TurnMeasured(self.turn, milestones | dict([extra] if extra else [])))

    async def _speak(self, text: str) -> None:
        self._change(State.THINKING)
        self.tell(AnswerStarted(self.turn, self.epoch))
        await asyncio.sleep(0.1)
        self.tell(Transcript(self.turn, False, text, True), PlayoutStarted(self.epoch))
        self._change(State.SPEAKING)
        self._measure()
        words = text.split(" ")
        sound = np.concatenate([_word(index) for index in range(len(words))])
        self._blocks.extend(
            Block(sound[at : at + BLOCK_SAMPLES], True, self.epoch, at) for at in range(0, len(sound), BLOCK_SAMPLES)
        )
        while self._blocks:
            await asyncio.sleep(BLOCK_S)
            spoken = len(words) - int(len(self._blocks) * BLOCK_S / WORD_S)
            if (said := len(" ".join(words[:spoken]))) != self._said:
                self._said = said
                self.tell(Transcript(self.turn, False, text, True, said))
        self.tell(PlayoutStopped(self.epoch, False))
        self.tell(AnswerEnded(self.turn, self.epoch, FinishReason.COMPLETED, len(sound), text))
        self._change(State.LISTENING)

    def _tick(self, slot: int, now_s: float) -> None:
        """In the pacer's thread."""
        if self.transport.ready:
            silence = Block(np.zeros(BLOCK_SAMPLES, np.int16), False, self.epoch + 1, 0)
            self.transport.play(self._blocks.popleft() if self._blocks else silence)


def _word(index: int) -> Any:
    """A tone that swells and fades, so that it looks like a word on a meter."""
    at_s = np.arange(round(WORD_S * 24000)) / 24000
    swell = np.sin(np.pi * at_s / WORD_S) ** 0.5
    return np.round(9000 * swell * np.sin(2 * np.pi * (180 + 25 * (index % 5)) * at_s)).astype(np.int16)


class ActingSessions(NotedSessions):
    """Opens conversations that act."""

    kind = ActingConversation

    def __init__(self, limit: int = 8) -> None:
        super().__init__(limit)
        self.board = LatencyBoard()
        ActingConversation.board, ActingConversation.pacer = self.board, Pacer()


def gateway_of(sessions: Any, webrtc: WebRtc) -> Any:
    """As much of a gateway as the routes need."""
    voices = [SimpleNamespace(name=name, language=language, dialect="", description="") for name, language in VOICES]

    async def known() -> Any:
        return voices

    info = SimpleNamespace(model_id="mini", languages=["English", "Chinese"])
    replica = SimpleNamespace(info=SimpleNamespace(slot_count=8), free_slots=7, is_suspect=False)
    away = SimpleNamespace(info=None, free_slots=0, is_suspect=False)
    stage = SimpleNamespace(info=info, all=[replica])
    stages = SimpleNamespace(voices=known, brain=SimpleNamespace(info=None, all=[away]), tts_lm=stage, codec=stage)
    loop_time = asyncio.get_running_loop().time
    return SimpleNamespace(sessions=sessions, webrtc=webrtc, stages=stages, time=loop_time, board=sessions.board)


VOICES = (("ada", "English"), ("ben", "English"), ("chen", "Chinese"))


@asynccontextmanager
async def house(
    sessions: Any = None, port: int = 0, webrtc: WebRtc | None = None, key: str = ""
) -> AsyncIterator[tuple[str, Any]]:
    """The address of a page whose conversations act, and the sessions."""
    sessions = sessions or ActingSessions()
    webrtc = webrtc or WebRtc(Network(interfaces=("127.0.0.1",)))
    gateway = gateway_of(sessions, webrtc)
    app = web.Application(middlewares=[_faults, _door(key)])
    RealtimeRoutes(GatewayConfig(port=0), cast(Any, gateway)).add(app)
    app.router.add_get("/v1/audio/voices", _voices)
    runner = web.AppRunner(app, handler_cancellation=True, access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}", sessions
    finally:
        with suppress(MeshError):
            for conversation in sessions.all:
                await conversation.close("the test is over")
        await webrtc.close()
        ActingConversation.pacer.close()
        await runner.cleanup()


def _door(key: str) -> Any:
    """As much of the gateway's door as the page can see."""

    @web.middleware
    async def ask(request: web.Request, handler: Any) -> web.StreamResponse:
        shown = request.headers.get("Authorization")
        if key and request.path.startswith("/v1/") and shown != f"Bearer {key}":
            raise AccessDenied("Show a key.")
        response: web.StreamResponse = await handler(request)
        return response

    return ask


async def _voices(request: web.Request) -> web.Response:
    cards = [{"name": name, "language": language} for name, language in VOICES]
    return web.json_response({"voices": cards, "languages": ["auto", "English", "Chinese"]})


async def _main() -> None:
    async with house(port=8099) as (address, _):
        print(address)
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(_main())
