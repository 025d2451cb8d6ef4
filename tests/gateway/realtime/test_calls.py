"""WebRTC calls over HTTP, by OpenAI's way and by WHIP, with aiortc as the caller."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import openai
import pytest
from aiortc import RTCPeerConnection, RTCSessionDescription

from tests.browser.house import ActingSessions, house
from tests.gateway.caller import until

pytestmark = pytest.mark.timeout(60)


@asynccontextmanager
async def offering() -> AsyncIterator[tuple[RTCPeerConnection, list[dict[str, Any]]]]:
    """A caller with an offer ready, and the events that it gets."""
    peer, events = RTCPeerConnection(), []
    channel = peer.createDataChannel("oai-events")
    channel.on("message", lambda text: events.append(json.loads(text)))
    peer.addTransceiver("audio", direction="sendrecv")
    await peer.setLocalDescription(await peer.createOffer())
    try:
        yield peer, events
    finally:
        await peer.close()


async def answered(peer: RTCPeerConnection, answer: str) -> None:
    await peer.setRemoteDescription(RTCSessionDescription(answer, "answer"))


@pytest.mark.parametrize("path", ["/v1/realtime/calls", "/whip"])
async def test_an_offer_is_answered_and_the_call_is_hung_up_by_its_address(path: str) -> None:
    async with house(ActingSessions()) as (address, sessions), offering() as (peer, events), _http(address) as http:
        headers = {"Content-Type": "application/sdp"}
        async with http.post(path, data=peer.localDescription.sdp, headers=headers) as response:
            assert response.status == 201
            assert response.content_type == "application/sdp"
            assert response.headers["ETag"]
            location = response.headers["Location"]
            await answered(peer, await response.text())
        await until(lambda: any(event["type"] == "session.created" for event in events))
        assert location.startswith(path + "/")
        async with http.delete(location) as response:
            assert response.status == 200
        assert sessions.all[0].asked[-1] == ("close", "the client hung up")
        async with http.delete(location) as response:
            assert response.status == 404
        async with http.patch(location) as response:
            assert response.status == 405  # trickle is optional, and not here


async def test_the_official_client_opens_a_call_with_its_session() -> None:
    wrong: Any = {"type": "realtime", "audio": {"output": {"voice": "nobody"}}}
    session: Any = {"type": "realtime", "instructions": "Be brief.", "audio": {"output": {"voice": "ben"}}}
    async with (
        house(ActingSessions()) as (address, sessions),
        offering() as (peer, events),
        openai.AsyncOpenAI(base_url=f"{address}/v1", api_key="none", max_retries=0) as client,
    ):
        answer = await client.realtime.calls.create(sdp=peer.localDescription.sdp, session=session)
        await answered(peer, answer.text)
        await until(lambda: any(event["type"] == "session.created" for event in events))
        settings = sessions.all[0].settings
        assert (settings.instructions, settings.voice) == ("Be brief.", "ben")
        with pytest.raises(openai.BadRequestError, match="no voice 'nobody'"):
            await client.realtime.calls.create(sdp=peer.localDescription.sdp, session=wrong)


async def test_a_lost_call_is_taken_up_with_its_token_and_a_made_up_one_is_refused() -> None:
    async with house(ActingSessions()) as (address, sessions), _http(address) as http:
        async with offering() as (peer, events):
            async with http.post("/v1/realtime/calls", data=_form(peer)) as response:
                await answered(peer, await response.text())
            await until(lambda: any(event["type"] == "session.created" for event in events))
            token = events[0]["session"]["voicemesh"]["resume_token"]
        for shown, status in ((token, 201), ("made up", 404)):
            async with offering() as (peer, _):
                headers = {"Voicemesh-Resume-Token": shown}
                async with http.post("/v1/realtime/calls", data=_form(peer), headers=headers) as response:
                    assert response.status == status
        assert len(sessions.all) == 1
        assert ("attach",) in sessions.all[0].asked


@pytest.mark.parametrize(
    ("body", "kind", "status"),
    [
        (b"", "application/sdp", 400),
        (b"v=0\r\nnonsense", "application/sdp", 400),
        (b"\xff\xfe", "application/sdp", 400),
        (b"v=0\r\n" * 20_000, "application/sdp", 413),
        (b"{}", "application/json", 415),
        (b"--x\r\nbroken", "multipart/form-data; boundary=y", 400),
        (b"--x\r\nbroken", "multipart/form-data", 400),
    ],
)
async def test_what_is_no_offer_is_refused(body: bytes, kind: str, status: int) -> None:
    async with house(ActingSessions()) as (address, sessions), _http(address) as http:
        async with http.post("/v1/realtime/calls", data=body, headers={"Content-Type": kind}) as response:
            assert response.status == status
            assert (await response.json())["error"]["message"]
        assert sessions.all == []


async def test_a_full_house_says_when_to_try_again() -> None:
    async with (
        house(ActingSessions(limit=0)) as (address, _),
        offering() as (peer, _),
        _http(address) as http,
        http.post("/v1/realtime/calls", data=_form(peer)) as response,
    ):
        assert response.status == 429
        assert response.headers["Retry-After"] == "3"


async def test_sessions_their_timelines_and_the_latency_are_listed() -> None:
    async with house(ActingSessions()) as (address, sessions), offering() as (peer, events), _http(address) as http:
        async with http.post("/whip", data=_form(peer)) as response:
            await answered(peer, await response.text())
        (conversation,) = sessions.all
        await until(lambda: any(event["type"] == "session.created" for event in events))
        conversation.type("What is twelve times seven?")
        await until(lambda: any(event["type"] == "voice.metrics" for event in events))
        async with http.get("/v1/sessions") as response:
            (session,) = (await response.json())["sessions"]
            assert session["transport"] == "webrtc"
            assert "token" not in str(session)
        async with http.get(f"/v1/sessions/{session['session_id']}/timeline") as response:
            (turn,) = (await response.json())["turns"]
            assert turn["stages_ms"]["brain"] == 19.0
        async with http.get("/v1/sessions/nobody/timeline") as response:
            assert response.status == 404
        conversation.interrupt()
        async with http.get("/v1/latency") as response:
            latency, tag = await response.json(), response.headers["ETag"]
            assert latency["summary"]["sums"]["first_audio"]["p50"] == 361.0
            brain, tts_lm, _ = latency["stages"]
            assert (brain["up"], brain["replicas"]) == (0, 1)
            assert (tts_lm["free_slots"], tts_lm["slots"]) == (7, 8)
        async with http.get("/v1/latency", headers={"If-None-Match": tag}) as response:
            assert response.status == 304


async def test_the_page_may_load_nothing_from_elsewhere() -> None:
    async with house(ActingSessions()) as (address, _), _http(address) as http:
        for path, kind in (("/", "text/html"), ("/latency", "text/html"), ("/page/app.js", "text/javascript")):
            async with http.get(path) as response:
                assert response.content_type == kind
                policy = response.headers["Content-Security-Policy"]
                assert "default-src 'none'" in policy
                assert "unsafe" not in policy
                tag = response.headers["ETag"]
            async with http.get(path, headers={"If-None-Match": tag}) as response:
                assert response.status == 304
        for path in ("/page/../routes.py", "/page/%2e%2e/routes.py", "/page/nothing.js"):
            async with http.get(path) as response:
                assert response.status == 404


@asynccontextmanager
async def _http(address: str) -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(base_url=address, timeout=aiohttp.ClientTimeout(30)) as session:
        yield session
        await asyncio.sleep(0)


def _form(peer: RTCPeerConnection) -> aiohttp.FormData:
    form = aiohttp.FormData()
    form.add_field("sdp", peer.localDescription.sdp, content_type="application/sdp")
    return form
