"""The filter in the gateway's speech line: what is said, and the caller's own characters in `text_offset`."""

from __future__ import annotations

import json

import aiohttp

from services.gateway.speakable import OffsetMap, Piece, SpeakableText
from tests.edges import gateway
from tests.fakes import speak, tone
from tests.gateway.caller import calling

WRITTEN = "**Hi** there 👋, see `x` at https://x.y/z. <think>no</think>"
SPOKEN = "Hi there , see x at . "


def test_the_way_back_counts_what_was_written() -> None:
    text = SpeakableText()
    assert (text.feed("**Hi** `yo"), text.feed("` 👋"), text.flush()) == ("Hi yo", " ", "")
    assert [text.original(spoken) for spoken in range(7)] == [0, 3, 4, 7, 9, 10, 12]


def test_of_what_stands_for_a_range_nothing_counts_before_all_of_it() -> None:
    offsets = OffsetMap()
    offsets.add([Piece("ab", 0, 2), Piece("twelve", 2, 4), Piece("cd", 4, 6)])
    assert [offsets.original(spoken) for spoken in range(12)] == [0, 1, 2, 2, 2, 2, 2, 2, 4, 5, 6, 6]


async def test_what_cannot_be_spoken_is_not_and_offsets_count_the_callers_characters() -> None:
    async with gateway() as server, calling(server.address) as caller:
        await caller.start(speakable_filter=True)
        for character in WRITTEN:
            await caller.text(character)
        await caller.flush()
        await caller.to_end()
        assert caller.pcm == tone(speak(SPOKEN, 7))[0].tobytes()
        offsets = [packet.text_offset for packet in caller.packets]
        assert offsets == sorted(offsets)
        assert offsets[-1] == WRITTEN.index("<think>")


async def test_numbers_are_read_as_the_gateway_is_configured() -> None:
    async with gateway(normalise="auto") as server, calling(server.address) as caller:
        await caller.say("It is $5.", speakable_filter=True)
        assert caller.pcm == tone(speak("It is five dollars.", 7))[0].tobytes()
        offsets = [packet.text_offset for packet in caller.packets]
        assert offsets[-1] == len("It is $5.")


async def test_a_boundary_lets_go_of_what_was_held_back() -> None:
    async with gateway(normalise="on") as server, calling(server.address) as caller:
        await caller.start(speakable_filter=True)
        await caller.text("5")
        await caller.boundary()
        await caller.heard(len(speak("five", 7)))
        await caller.text(" 6")
        await caller.flush()
        await caller.to_end()
        assert caller.frame_count == len(speak("five", 7)) + len(speak(" six", 8))


async def test_without_the_filter_every_character_is_spoken() -> None:
    async with gateway() as server, calling(server.address) as caller:
        await caller.say("**Hi**")
        assert caller.pcm == tone(speak("**Hi**", 7))[0].tobytes()


async def test_http_and_the_socket_filter_when_they_are_asked_to() -> None:
    async with gateway(http=True) as server, aiohttp.ClientSession() as session:
        http = server.announcement["http"]
        body = {"model": "tts-1", "voice": "default", "input": "**Hi** 👋", "seed": 7, "response_format": "pcm"}
        async with session.post(f"{http}/v1/audio/speech", json=body | {"speakable_filter": True}) as answer:
            assert await answer.read() == tone(speak("Hi ", 7))[0].tobytes()
        async with session.post(f"{http}/v1/audio/speech", json=body | {"speakable_filter": "yes"}) as answer:
            assert answer.status == 400
        async with session.ws_connect(f"{http}/v1/audio/speech/stream") as socket:
            for message in ({"type": "start", "seed": 7, "speakable_filter": True}, {"type": "text", "text": "**Hi**"}):
                await socket.send_json(message)
            await socket.send_json({"type": "flush"})
            heard = b""
            while (came := await socket.receive()).type in (aiohttp.WSMsgType.TEXT, aiohttp.WSMsgType.BINARY):
                if came.type is aiohttp.WSMsgType.BINARY:
                    heard += came.data
                elif json.loads(came.data)["type"] == "ended":
                    break
            assert heard == tone(speak("Hi", 7))[0].tobytes()
