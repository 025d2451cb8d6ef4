"""Which rooms are joined: one by name or token, or those that a server dispatches by LiveKit's own protocol."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import jwt
import pytest
from aiohttp import web
from livekit.protocol import agent

from common.config import ConfigError, load
from services.gateway.config import GatewayConfig
from services.gateway.livekit.config import LiveKitConfig
from services.gateway.livekit.rooms import Rooms
from tests.gateway.livekit.fake_sdk import FakeServer
from tests.gateway.livekit.house import House, until

SECRET = "s" * 32
KEYS: dict[str, Any] = {"livekit_api_key": "APIkey", "livekit_api_secret": SECRET}


def claims_of(token: str) -> dict[str, Any]:
    return dict(jwt.decode(token, SECRET, algorithms=["HS256"]))


@asynccontextmanager
async def rooms_of(server: FakeServer, house: House, **settings: Any) -> AsyncIterator[Rooms]:
    found: Any = house
    rooms = Rooms(LiveKitConfig(**settings), lambda: found, server.sdk)
    await rooms.start()
    try:
        yield rooms
    finally:
        await rooms.close()


class Dispatcher:
    """The server's end of the protocol, for one worker at a time."""

    def __init__(self) -> None:
        self.told: list[Any] = []
        self.tokens: list[str] = []
        self.socket: web.WebSocketResponse | None = None

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.tokens.append(request.headers["Authorization"].removeprefix("Bearer "))
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        async for message in socket:
            self.told.append(agent.WorkerMessage.FromString(message.data))
            if self.told[-1].HasField("register"):
                self.socket = socket
                await self.say(register=agent.RegisterWorkerResponse(worker_id=f"AW_{len(self.tokens)}"))
        return socket

    async def say(self, **message: Any) -> None:
        assert self.socket is not None
        await self.socket.send_bytes(agent.ServerMessage(**message).SerializeToString())

    def of(self, kind: str) -> list[Any]:
        return [getattr(message, kind) for message in self.told if message.HasField(kind)]

    def statuses(self) -> list[tuple[str, int]]:
        return [(update.job_id, update.status) for update in self.of("update_job")]

    async def offer(self, job_id: str) -> Any:
        count = len(self.of("availability"))
        await self.say(availability=agent.AvailabilityRequest(job=agent.Job(id=job_id)))
        await until(lambda: len(self.of("availability")) > count)
        return self.of("availability")[-1]

    async def assign(self, job_id: str, url: str = "ws://assigned") -> None:
        await self.say(assignment=agent.JobAssignment(job=agent.Job(id=job_id), url=url, token=f"token-{job_id}"))


@asynccontextmanager
async def dispatching() -> AsyncIterator[tuple[Dispatcher, str]]:
    dispatcher = Dispatcher()
    app = web.Application()
    app.router.add_get("/agent", dispatcher.handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield dispatcher, f"ws://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


async def test_a_named_room_is_joined_with_a_token_of_our_own_that_may_set_attributes() -> None:
    server, house = FakeServer(), House()
    async with rooms_of(server, house, livekit_url="ws://there", livekit_room="hall", **KEYS):
        await until(lambda: server.rooms)
        url, token = server.room.credentials
        claims = claims_of(token)
        assert url == "ws://there"
        assert (claims["iss"], claims["sub"], claims["kind"]) == ("APIkey", "voicemesh", "agent")
        grants = claims["video"]
        assert (grants["roomJoin"], grants["room"], grants["canUpdateOwnMetadata"]) == (True, "hall", True)
    assert server.room.left


async def test_a_token_that_was_given_is_shown_as_it_is() -> None:
    server, house = FakeServer(), House()
    async with rooms_of(server, house, livekit_url="ws://there", livekit_token="given"):
        await until(lambda: server.rooms)
        assert server.room.credentials == ("ws://there", "given")


async def test_without_an_address_no_room_is_joined() -> None:
    server, house = FakeServer(), House()
    async with rooms_of(server, house):
        assert server.rooms == []


async def test_a_dispatched_room_is_taken_held_and_reported() -> None:
    server, house = FakeServer(), House()
    async with (
        dispatching() as (dispatcher, url),
        rooms_of(server, house, livekit_url=url, livekit_agent_name="host", **KEYS),
    ):
        await until(lambda: dispatcher.socket)
        (registration,) = dispatcher.of("register")
        assert (registration.type, registration.agent_name) == (agent.JobType.JT_ROOM, "host")
        assert claims_of(dispatcher.tokens[0])["video"]["agent"] is True
        answer = await dispatcher.offer("AJ_1")
        assert (answer.job_id, answer.available, answer.participant_identity) == ("AJ_1", True, "voicemesh-AJ_1")
        await dispatcher.assign("AJ_1")
        await until(lambda: server.rooms)
        assert server.room.credentials == ("ws://assigned", "token-AJ_1")
        server.come("ada")
        await until(lambda: house.opened)
        await dispatcher.say(termination=agent.JobTermination(job_id="AJ_1"))
        await until(lambda: len(dispatcher.statuses()) == 2)
        kinds = agent.JobStatus
        assert dispatcher.statuses() == [("AJ_1", kinds.JS_RUNNING), ("AJ_1", kinds.JS_SUCCESS)]
        assert house.opened[0].done == ["close left"]


async def test_a_worker_with_all_its_rooms_takes_no_more() -> None:
    server, house = FakeServer(), House()
    async with (
        dispatching() as (dispatcher, url),
        rooms_of(server, house, livekit_url=url, livekit_max_rooms=1, **KEYS),
    ):
        await until(lambda: dispatcher.socket)
        await dispatcher.assign("AJ_1")
        await until(lambda: server.rooms)
        assert (await dispatcher.offer("AJ_2")).available is False


async def test_a_room_that_breaks_is_a_failed_job_and_the_worker_lives_on() -> None:
    server, house = FakeServer(), House()
    server.broken = 1
    async with dispatching() as (dispatcher, url), rooms_of(server, house, livekit_url=url, **KEYS):
        await until(lambda: dispatcher.socket)
        await dispatcher.assign("AJ_1")
        await until(lambda: ("AJ_1", agent.JobStatus.JS_FAILED) in dispatcher.statuses())
        await dispatcher.assign("AJ_2")
        await until(lambda: server.rooms)
        assert server.room.credentials[1] == "token-AJ_2"


async def test_a_lost_dispatcher_is_found_again_and_rooms_go_on_meanwhile() -> None:
    server, house = FakeServer(), House()
    async with dispatching() as (dispatcher, url), rooms_of(server, house, livekit_url=url, **KEYS):
        await until(lambda: dispatcher.socket)
        await dispatcher.assign("AJ_1")
        await until(lambda: server.rooms)
        before = dispatcher.socket
        assert before is not None
        await before.close()
        await until(lambda: len(dispatcher.of("register")) == 2)
        assert not server.room.left
        await dispatcher.say(termination=agent.JobTermination(job_id="AJ_1"))
        await until(lambda: ("AJ_1", agent.JobStatus.JS_SUCCESS) in dispatcher.statuses())


def test_an_address_without_a_way_in_is_refused() -> None:
    with pytest.raises(ConfigError, match="livekit_token"):
        load(GatewayConfig, ["--livekit-url", "wss://there"], environ={})
    with pytest.raises(ConfigError, match="livekit_url"):
        load(GatewayConfig, ["--livekit-url", "https://there"], environ={})


@pytest.mark.skipif("LIVEKIT_URL" not in os.environ, reason="LIVEKIT_URL, _API_KEY, _API_SECRET name no server")
@pytest.mark.timeout(60)
async def test_a_real_server_carries_a_voice_there_and_back() -> None:
    """Two of the SDK's own rooms: ours, and a person who publishes a tone, reads our state and hears our sound."""
    from tests.gateway.livekit.real_room import converse

    await asyncio.wait_for(converse(os.environ["LIVEKIT_URL"]), 50)
