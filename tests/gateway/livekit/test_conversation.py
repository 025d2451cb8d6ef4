"""The real session core in a room: typed in the chat, answered in sound and text."""

from __future__ import annotations

import asyncio

import numpy as np

from services.gateway.livekit.stay import Stay
from services.gateway.session.ports import Sessions, SessionSettings
from tests.fakes import ScriptedBrain, speak
from tests.gateway.livekit.fake_sdk import FakeServer
from tests.gateway.livekit.house import until
from tests.gateway.session.home import home


async def test_a_question_in_the_chat_is_answered_by_the_voice_in_the_room() -> None:
    server = FakeServer()
    server.come("ada")
    async with home(ScriptedBrain()) as house:

        def sessions() -> Sessions:
            return house.conversations.registry

        stay = Stay(server.sdk, lambda: ("ws://there", "token"), sessions, settings=SessionSettings(), stays=True)
        task = asyncio.ensure_future(stay.run())
        await until(lambda: house.conversations.registry.all)
        room = server.room
        room.write("ada", "Hi.")

        def said() -> bool:
            return any(stream.attributes["lk.segment_id"].startswith("answer") and stream.closing for stream in streams)

        streams = room.local_participant.streams
        await until(said)

        def loud() -> int:
            frames = room.local_participant.published[0].track.source.frames
            return sum(bool(np.frombuffer(frame.data, np.int16).any()) for frame in frames)

        blocks = 4 * len(speak("Hi."))  # of 20 ms
        await until(lambda: loud() >= blocks)
        assert loud() <= blocks + 12, "what is said is three or four characters"
        (answer,) = [one for one in streams if one.attributes["lk.segment_id"].startswith("answer")]
        assert "".join(answer.pieces).strip() == "Hi."
        told = [one["lk.agent.state"] for one in room.local_participant.set]
        assert "speaking" in told
        stay.leave()
        await asyncio.wait([task])
        assert task.exception() is None
        assert house.conversations.registry.all == []
