"""The door as callers meet it: over gRPC, HTTP and WebSocket."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from voicemesh.gateway.v1 import gateway_pb2, gateway_pb2_grpc

from common.status import DETAILS_KEY
from tests.edges import gateway
from tests.fakes import ScriptedBrain, speak, tone
from tests.gateway.access.tokens import Authority
from tests.gateway.caller import Caller, Stub, dialled
from tests.gateway.session.talker import Talker

KEY = "a-long-and-random-key-of-ada"
KEYS = f"ada={KEY},bob={KEY}-bob"
TEXT = "Hello there."
Conversations: Any = gateway_pb2_grpc.ConversationServiceStub


def metadata(key: str = KEY) -> tuple[tuple[str, str], ...]:
    return (("authorization", f"Bearer {key}"),)


def retry_after_s(error: grpc.aio.AioRpcError) -> float:
    status, retry = status_pb2.Status(), error_details_pb2.RetryInfo()
    details: Any = dict(error.trailing_metadata() or ())
    status.ParseFromString(details[DETAILS_KEY])
    for detail in status.details:
        if detail.Is(retry.DESCRIPTOR):
            detail.Unpack(retry)
    return float(retry.retry_delay.ToTimedelta().total_seconds())


@asynccontextmanager
async def http_of(**settings: Any) -> AsyncIterator[tuple[str, aiohttp.ClientSession]]:
    async with gateway(**settings) as server, aiohttp.ClientSession() as session:
        yield server.announcement["http"], session


async def test_without_a_key_nothing_is_spoken_and_with_one_it_is() -> None:
    async with gateway(api_keys=KEYS, http=False) as server, dialled(server.address) as channel:
        for shown in ((), metadata("wrong-but-long-enough"), (("authorization", "Basic x"),)):
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await Stub(channel).Synthesize(metadata=shown).read()
            assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED
            assert "wrong" not in (refused.value.details() or "")
        caller = Caller(Stub(channel).Synthesize(metadata=metadata()))
        await caller.say(TEXT)
        assert caller.pcm == tone(speak(TEXT, 7))[0].tobytes()


async def test_health_needs_no_key_and_operating_needs_its_scope() -> None:
    async with gateway(api_keys=KEYS, http=False) as server, dialled(server.address) as channel:
        health = await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest())
        assert health.status == health_pb2.HealthCheckResponse.SERVING
        stub = Conversations(channel)
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await stub.ListSessions(gateway_pb2.ListSessionsRequest(), metadata=metadata())
        assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED


async def test_a_key_with_all_its_sessions_taken_hears_when_to_come_back_and_others_go_on() -> None:
    async with gateway(api_keys=KEYS, key_max_sessions=1, http=False) as server, dialled(server.address) as channel:
        caller = Caller(Stub(channel).Synthesize(metadata=metadata()))
        await caller.start()
        await caller.text(TEXT)
        await caller.heard(1)
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await Stub(channel).Synthesize(metadata=metadata()).read()
        assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert retry_after_s(refused.value) > 0
        other = Caller(Stub(channel).Synthesize(metadata=metadata(f"{KEY}-bob")))
        await other.say(TEXT)
        await caller.flush()
        await caller.to_end()
        assert caller.pcm == other.pcm == tone(speak(TEXT, 7))[0].tobytes()


async def test_text_beyond_the_minute_fails_the_utterance_and_not_the_stream() -> None:
    settings: Any = {"api_keys": KEYS, "key_characters_per_minute": len(TEXT) + 1, "http": False}
    async with gateway(**settings) as server, dialled(server.address) as channel:
        caller = Caller(Stub(channel).Synthesize(metadata=metadata()))
        await caller.say(TEXT)
        ended = await caller.say(TEXT, epoch=5)
        assert ended.error.code == grpc.StatusCode.RESOURCE_EXHAUSTED.value[0]
        assert (await caller.say("H", epoch=6)).error.code == 0
        other = Caller(Stub(channel).Synthesize(metadata=metadata(f"{KEY}-bob")))
        assert (await other.say(TEXT)).error.code == 0


async def test_http_tells_who_may_not_why_and_who_has_had_enough_when() -> None:
    async with http_of(api_keys=KEYS, key_calls_per_minute=3) as (address, session):
        body = {"model": "tts-1", "voice": "default", "input": TEXT, "seed": 7, "response_format": "pcm"}
        url = f"{address}/v1/audio/speech"
        async with session.post(url, json=body) as answer:
            assert (answer.status, answer.headers["WWW-Authenticate"]) == (401, "Bearer")
            assert (await answer.json())["error"]["type"] == "authentication_error"
        for header in ({"Authorization": f"Bearer {KEY}"}, {"X-Api-Key": KEY}, {"X-Api-Key": KEY}):
            async with session.post(url, json=body, headers=header) as answer:
                assert await answer.read() == tone(speak(TEXT, 7))[0].tobytes()
        async with session.post(url, json=body, headers={"X-Api-Key": KEY}) as answer:
            assert answer.status == 429
            assert 1 <= int(answer.headers["Retry-After"]) <= 20
        async with session.get(f"{address}/healthz") as answer:
            assert answer.status == 200
        async with session.get(f"{address}/v1/models", headers={"X-Api-Key": f"{KEY}-bob"}) as answer:
            assert answer.status == 200


async def test_a_browser_shows_its_key_to_a_socket_as_a_subprotocol() -> None:
    async with http_of(api_keys=KEYS) as (address, session):
        url = f"{address}/v1/audio/speech/stream"
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await session.ws_connect(url, protocols=("realtime",))
        assert refused.value.status == 401
        protocols = ("realtime", f"openai-insecure-api-key.{KEY}")
        async with session.ws_connect(url, protocols=protocols) as socket:
            assert socket.protocol == "realtime"


ORIGINS = [
    ("http://127.0.0.1:{port}", "127.0.0.1:{port}", True),
    ("http://localhost:{port}", "localhost:{port}", True),
    ("https://app.example", "127.0.0.1:{port}", True),
    ("https://evil.example", "127.0.0.1:{port}", False),
    ("null", "127.0.0.1:{port}", False),
    ("http://rebound.example:{port}", "rebound.example:{port}", False),
    ("http://127.0.0.1:1", "127.0.0.1:{port}", False),
]


@pytest.mark.parametrize(("origin", "host", "may"), ORIGINS)
async def test_only_our_own_page_and_named_ones_may_call(origin: str, host: str, may: bool) -> None:
    async with http_of(allowed_origins=("https://app.example",)) as (address, session):
        port = address.rpartition(":")[2]
        headers = {"Origin": origin.format(port=port), "Host": host.format(port=port)}
        body = {"model": "tts-1", "voice": "default", "input": "Hi", "response_format": "pcm"}
        async with session.post(f"{address}/v1/audio/speech", json=body, headers=headers) as answer:
            assert answer.status == (200 if may else 403)
        if may:
            async with session.ws_connect(f"{address}/v1/audio/speech/stream", headers=headers):
                return
        with pytest.raises(aiohttp.WSServerHandshakeError):
            await session.ws_connect(f"{address}/v1/audio/speech/stream", headers=headers)


async def test_a_named_page_may_read_the_answer_and_ask_before() -> None:
    async with http_of(allowed_origins=("https://app.example",), api_keys=KEYS) as (address, session):
        headers = {"Origin": "https://app.example", "Authorization": f"Bearer {KEY}"}
        async with session.options(f"{address}/v1/models", headers={"Origin": "https://app.example"}) as answer:
            assert answer.status == 204
            assert "Authorization" in answer.headers["Access-Control-Allow-Headers"]
        async with session.get(f"{address}/v1/models", headers=headers) as answer:
            assert answer.headers["Access-Control-Allow-Origin"] == "https://app.example"
            assert "Location" in answer.headers["Access-Control-Expose-Headers"]  # where a call is hung up
        async with session.get(f"{address}/v1/models", headers=headers | {"Origin": "https://evil.example"}) as answer:
            assert "Access-Control-Allow-Origin" not in answer.headers


async def test_http_speaks_tls_where_grpc_does(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    pair = authority.signed("gateway")
    files: Any = {"tls_certificate_file": pair.certificate, "tls_key_file": pair.key}
    async with http_of(**files) as (address, session):
        assert address.startswith("https://")
        address = address.replace("127.0.0.1", "localhost")
        trusting = ssl.create_default_context(cafile=str(authority.file))
        async with session.get(f"{address}/healthz", ssl=trusting) as answer:
            assert answer.status == 200
        with pytest.raises(aiohttp.ClientError):
            await session.get(f"{address.replace('https', 'http')}/healthz")


async def test_a_conversation_counts_against_its_key_until_it_is_over() -> None:
    settings: Any = {"api_keys": KEYS, "key_max_sessions": 1, "http": False, "brain": ScriptedBrain()}
    async with gateway(**settings) as server, dialled(server.address) as channel:
        stub = Conversations(channel)
        call = stub.Converse(metadata=metadata())
        talker = Talker(stub, call)
        await talker.start()
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await stub.Converse(metadata=metadata()).read()
        assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        await Talker(stub, stub.Converse(metadata=metadata(f"{KEY}-bob"))).start()
        await call.done_writing()
        await talker.to_end()
        await Talker(stub, stub.Converse(metadata=metadata())).start()


async def test_a_lost_conversation_counts_on_while_it_waits_and_once_when_it_is_taken_up() -> None:
    settings: Any = {"api_keys": KEYS, "key_max_sessions": 2, "http": False, "brain": ScriptedBrain()}
    async with gateway(**settings) as server, dialled(server.address) as channel:
        stub = Conversations(channel)
        lost = Talker(stub, stub.Converse(metadata=metadata()))
        await lost.start()
        lost.call.cancel()
        again = Talker(stub, stub.Converse(metadata=metadata()))
        await again.start(resume_token=lost.started.resume_token)
        assert again.session_id == lost.session_id
        await Talker(stub, stub.Converse(metadata=metadata())).start()
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await stub.Converse(metadata=metadata()).read()
        assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
