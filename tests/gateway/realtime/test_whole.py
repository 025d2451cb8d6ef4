"""OpenAI's own client in a conversation with the whole gateway: real sessions, real stages behind gRPC, toy engines."""

from __future__ import annotations

import base64
from typing import Any

import aiohttp
import numpy as np
import openai
import pytest

from tests.edges import gateway, serving

pytestmark = pytest.mark.timeout(60)


async def test_the_official_client_types_hears_interrupts_and_is_listed() -> None:
    async with serving("brain") as brain, gateway(brain_address=brain.address) as server:
        address = server.announcement["http"]
        async with (
            openai.AsyncOpenAI(base_url=f"{address}/v1", api_key="none") as client,
            client.realtime.connect(model="any", websocket_connection_options={"proxy": None}) as connection,
        ):
            created = await connection.recv()
            assert created.type == "session.created"
            heard, done = await _answered(connection, "hello there")
            assert done.response.status == "completed"
            assert np.abs(heard).max() > 1000  # a tone of the toy voice
            transcript = done.response.output[0].content[0].transcript
            assert transcript
            cut, done = await _answered(connection, "hello again", cut=True)
            assert done.response.status == "cancelled"
            assert done.response.status_details.reason == "client_cancelled"
            assert cut.size < heard.size
            async with aiohttp.ClientSession() as http, http.get(f"{address}/v1/sessions") as response:
                (session,) = (await response.json())["sessions"]
            assert (session["session_id"], session["transport"]) == (created.session.id, "websocket")
            async with aiohttp.ClientSession() as http, http.get(f"{address}/v1/latency") as response:
                turns = (await response.json())["turns"]
            assert [turn["ended"] for turn in turns] == ["COMPLETED", "CANCELLED"]


async def _answered(connection: Any, text: str, *, cut: bool = False) -> tuple[Any, Any]:
    """The sound of the answer to a typed text, and its end; `cut` after the first sound."""
    content = [{"type": "input_text", "text": text}]
    await connection.conversation.item.create(item={"type": "message", "role": "user", "content": content})
    await connection.response.create()
    sound = b""
    while True:
        event = await connection.recv()
        assert event.type != "error", event
        if event.type == "response.output_audio.delta":
            sound += base64.b64decode(event.delta)
            if cut:
                await connection.response.cancel()
                cut = False
        if event.type == "response.done":
            return np.frombuffer(sound, "<i2").astype(int), event
