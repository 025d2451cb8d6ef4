"""`/v1/realtime` as OpenAI's own client and others see it, over a conversation that notes what it is asked."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import numpy as np
import openai
import pytest
from aiohttp import web

from common.stream import FinishReason
from services.gateway.realtime.commands import MAX_MESSAGE_BYTES
from services.gateway.realtime.settings import Offer
from services.gateway.realtime.socket import MAX_TEXTS, serve_realtime
from services.gateway.session.ports import (
    AnswerEnded,
    AnswerStarted,
    Block,
    SessionSettings,
    Transcript,
    TurnCommitted,
)
from tests.gateway.caller import until
from tests.gateway.realtime.house import NotedConversation, NotedSessions, tone

OFFER = Offer("mini", ("Ada",), {}, ("English",))


@asynccontextmanager
async def served(sessions: NotedSessions) -> AsyncIterator[str]:
    """The address of a gateway that has only the WebSocket."""

    async def handler(request: web.Request) -> web.StreamResponse:
        time = asyncio.get_running_loop().time
        return await serve_realtime(request, sessions, OFFER, SessionSettings(), time)

    app = web.Application()
    app.router.add_get("/v1/realtime", handler)
    runner = web.AppRunner(app, handler_cancellation=True)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


@asynccontextmanager
async def official(address: str) -> AsyncIterator[Any]:
    async with (
        openai.AsyncOpenAI(base_url=f"{address}/v1", api_key="none") as client,
        client.realtime.connect(model="gpt-realtime", websocket_connection_options={"proxy": None}) as connection,
    ):
        assert (await connection.recv()).type == "session.created"
        yield connection


@asynccontextmanager
async def socket_of(address: str, **options: Any) -> AsyncIterator[aiohttp.ClientWebSocketResponse]:
    async with aiohttp.ClientSession() as session, session.ws_connect(f"{address}/v1/realtime", **options) as socket:
        yield socket


def blocks(sound: Any, epoch: int) -> list[Block]:
    return [Block(sound[at : at + 480], True, epoch, at) for at in range(0, len(sound), 480)]


async def spoken(conversation: NotedConversation, sound: Any, epoch: int) -> None:
    """From a thread, as the pacer gives it."""

    def pace() -> None:
        for block in blocks(sound, epoch):
            while not conversation.transport.ready:
                pass
            conversation.transport.play(block)

    await asyncio.to_thread(pace)


async def test_the_official_client_types_and_hears_the_answer() -> None:
    sessions, sound = NotedSessions(), tone(0.5, 24000)
    async with served(sessions) as address, official(address) as connection:
        await connection.session.update(session={"type": "realtime", "instructions": "Be brief."})
        assert (await connection.recv()).session.instructions == "Be brief."
        content = [{"type": "input_text", "text": "What is the time?"}]
        await connection.conversation.item.create(item={"type": "message", "role": "user", "content": content})
        await connection.response.create()
        (conversation,) = sessions.all
        await until(lambda: ("type", "What is the time?") in conversation.asked)
        conversation.tell(TurnCommitted(1, True), AnswerStarted(1, 1), Transcript(1, False, "Noon.", True))
        await spoken(conversation, sound, 1)
        await until(lambda: conversation.transport.ready)
        conversation.tell(AnswerEnded(1, 1, FinishReason.COMPLETED, len(sound), "Noon."))
        heard, kinds, transcript = b"", [], ""
        async for event in connection:
            kinds.append(event.type)
            if event.type == "response.output_audio.delta":
                heard += base64.b64decode(event.delta)
            if event.type == "response.output_audio_transcript.delta":
                transcript += event.delta
            if event.type == "response.done":
                break
    assert np.array_equal(np.frombuffer(heard, "<i2"), sound)
    assert transcript == "Noon."
    assert kinds.count("response.created") == 1


async def test_the_official_client_is_heard() -> None:
    sessions, sound = NotedSessions(), tone(0.6, 24000)
    async with served(sessions) as address, official(address) as connection:
        for at in range(0, len(sound), 4800):
            await connection.input_audio_buffer.append(audio=base64.b64encode(sound[at : at + 4800].tobytes()).decode())
        await connection.input_audio_buffer.commit()
        (conversation,) = sessions.all
        await until(lambda: conversation.asked)
        assert conversation.asked[0][0] == "commit"
        assert conversation.asked[0][1] / 16000 == pytest.approx(0.6, abs=0.02)


async def test_sound_of_an_answer_that_was_cut_reaches_nobody() -> None:
    sessions = NotedSessions()
    async with served(sessions) as address, socket_of(address) as socket:
        (conversation,) = sessions.all
        conversation.tell(AnswerStarted(1, 1))
        conversation.transport.play(blocks(tone(0.02, 24000), 1)[0])  # on its way to the loop
        conversation.tell(AnswerEnded(1, 1, FinishReason.CANCELLED, 0, ""))
        await until(lambda: conversation.transport.ready)
        await socket.send_json({"type": "voice.ping", "client_ms": 1})
        kinds = []
        while "voice.pong" not in kinds:
            kinds.append((await socket.receive_json())["type"])
    assert "response.done" in kinds
    assert "response.output_audio.delta" not in kinds


async def test_a_client_that_reads_nothing_is_not_given_more_than_it_takes() -> None:
    sessions = NotedSessions()
    async with served(sessions) as address, socket_of(address):
        transport = sessions.all[0].transport
        transport.tell(AnswerStarted(1, 1))
        for block in blocks(tone(1.0, 24000), 1):  # without once letting the loop run
            if not transport.ready:
                break
            transport.play(block)
        else:
            pytest.fail("a second of sound was taken at once")


async def test_a_full_house_refuses_before_the_socket_opens() -> None:
    async with served(NotedSessions(limit=0)) as address:
        with pytest.raises(aiohttp.WSServerHandshakeError):
            async with socket_of(address):
                pass


async def test_a_lost_client_is_waited_for_and_comes_back_with_its_token() -> None:
    sessions = NotedSessions()
    async with served(sessions) as address:
        async with socket_of(address) as socket:
            token = (await socket.receive_json())["session"]["voicemesh"]["resume_token"]
            (conversation,) = sessions.all
            transport = socket._response.connection.transport
            transport.abort()
            await until(lambda: ("suspend",) in conversation.asked)
        async with socket_of(address, headers={"Voicemesh-Resume-Token": token}) as socket:
            created = await socket.receive_json()
            assert created["session"]["id"] == conversation.session_id
            assert ("attach",) in conversation.asked
        await until(lambda: conversation.asked[-1][0] == "close")  # this time it said goodbye


async def test_the_conversation_hangs_up_on_its_client() -> None:
    sessions = NotedSessions()
    async with served(sessions) as address, socket_of(address) as socket:
        await socket.receive_json()
        await sessions.all[0].close("the drain is over")
        message = await socket.receive()
        assert message.type is aiohttp.WSMsgType.CLOSE
        assert message.extra == "the drain is over"
    assert sessions.all[0].asked == [("close", "the drain is over")]


async def test_hostile_frames_are_answered_and_the_session_goes_on() -> None:
    async with served(NotedSessions()) as address, socket_of(address) as socket:
        await socket.receive_json()
        await socket.send_bytes(b"\0" * 100)
        await socket.send_str('{"type": "input_audio_buffer.append", "audio": 5}')
        await socket.send_json({"type": "voice.ping", "client_ms": 3})
        answers = [await socket.receive_json() for _ in range(3)]
        assert [answer["type"] for answer in answers] == ["error", "error", "voice.pong"]


async def test_a_frame_beyond_all_bounds_ends_the_session_at_once() -> None:
    sessions = NotedSessions()
    async with served(sessions) as address, socket_of(address) as socket:
        await socket.receive_json()
        await socket.send_str("x" * (2 * MAX_MESSAGE_BYTES + 1))
        await until(lambda: sessions.all[0].asked)
        assert sessions.all[0].asked[0][0] == "close"


async def test_a_client_that_reads_too_slowly_may_come_back() -> None:
    sessions = NotedSessions()
    async with served(sessions) as address, socket_of(address) as socket:
        await socket.receive_json()
        transport = sessions.all[0].transport
        for number in range(MAX_TEXTS + 1):  # without once letting the loop run
            transport.tell(TurnCommitted(number, False))
        assert (await socket.receive()).type is aiohttp.WSMsgType.CLOSE
        await until(lambda: ("suspend",) in sessions.all[0].asked)
