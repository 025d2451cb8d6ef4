"""A participant in a room: what it publishes, whom it hears, what it writes, and how it comes back."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import numpy as np
import pytest
from livekit import rtc

from common.errors import Overloaded
from common.status import cause_of
from services.gateway.livekit.transport import RoomTransport
from services.gateway.session.ports import PlayoutStopped, State, StateChanged, Transcript, UserAway
from tests import virtual_time
from tests.gateway.livekit.fake_sdk import FakeRemoteTrack, FakeServer
from tests.gateway.livekit.house import House, block, staying, until


def states(server: FakeServer) -> list[str]:
    return [one["lk.agent.state"] for one in server.room.local_participant.set]


async def test_it_joins_without_everybodys_tracks_and_publishes_one_microphone_of_its_own() -> None:
    server, house = FakeServer(), House()
    async with staying(server, house):
        await until(lambda: server.rooms and server.room.local_participant.published)
        (publication,) = server.room.local_participant.published
        assert server.room.options.auto_subscribe is False
        assert publication.options.source == rtc.TrackSource.SOURCE_MICROPHONE
        assert publication.track.source.form == (24000, 1, 20)
        await until(lambda: states(server) == ["idle"])
        assert house.opened == []


async def test_it_hears_the_person_at_16_khz_and_nobody_else() -> None:
    server, house = FakeServer(), House()
    async with staying(server, house):
        await until(lambda: server.rooms)
        ada, bob, track = server.come("ada"), server.come("bob"), FakeRemoteTrack()
        server.come("recorder", kind=rtc.ParticipantKind.PARTICIPANT_KIND_EGRESS)
        await until(lambda: house.opened)
        server.speak(ada, track)
        track.frames.put_nowait(np.arange(160, dtype=np.int16).tobytes())
        await until(lambda: house.opened[0].heard)
        assert house.opened[0].heard[0].tolist() == list(range(160))
        assert bob.track_publications["TR_mic"].asked_for == 0
        assert len(house.opened) == 1


async def test_who_was_there_before_is_met_too_and_an_agent_is_not_a_person() -> None:
    server, house = FakeServer(), House()
    server.come("other-agent", kind=rtc.ParticipantKind.PARTICIPANT_KIND_AGENT)
    server.come("caller", kind=rtc.ParticipantKind.PARTICIPANT_KIND_SIP)
    async with staying(server, house):
        await until(lambda: house.opened)
        assert server.people["caller"].track_publications["TR_mic"].asked_for == 1
        assert server.people["other-agent"].track_publications["TR_mic"].asked_for == 0


async def test_sound_leaves_in_the_order_of_the_pacer_and_what_was_cut_does_not() -> None:
    server, house = FakeServer(), House()
    server.come("ada")
    async with staying(server, house):
        await until(lambda: house.opened)
        (ada,) = house.opened
        source = server.room.local_participant.published[0].track.source
        await asyncio.to_thread(ada.play, block(1), block(2))
        await until(lambda: len(source.frames) == 2)
        assert [np.frombuffer(frame.data, np.int16)[0] for frame in source.frames] == [1, 2]
        assert {(frame.sample_rate, frame.samples_per_channel) for frame in source.frames} == {(24000, 480)}

        source.open_gate.clear()  # the source is full
        assert ada.transport.ready
        ada.play(block(3), block(4))
        assert not ada.transport.ready
        ada.play(block(5))
        ada.tell(PlayoutStopped(epoch=0, cleared=True))
        assert source.cleared == 1
        source.open_gate.set()
        ada.play(block(6, epoch=1))
        await until(lambda: len(source.frames) >= 3 and np.frombuffer(source.frames[-1].data, np.int16)[0] == 6)
        assert 4 not in {int(np.frombuffer(frame.data, np.int16)[0]) for frame in source.frames}


async def test_an_answer_is_written_as_one_stream_and_the_person_as_versions() -> None:
    server, house = FakeServer(), House()
    server.come("ada")
    async with staying(server, house):
        await until(lambda: house.opened)
        (ada,), local = house.opened, server.room.local_participant
        for text, final in (("What", False), ("What time", False), ("What time is it?", True)):
            ada.tell(Transcript(1, user=True, text=text, final=final))
            await until(lambda text=text: local.streams and local.streams[-1].pieces == [text])  # type: ignore[misc]
        assert {stream.attributes["lk.segment_id"] for stream in local.streams} == {"user-1"}
        assert {stream.sender_identity for stream in local.streams} == {"ada"}
        assert [stream.closing for stream in local.streams] == [
            {"lk.transcription_final": final} for final in ("false", "false", "true")
        ]
        for text, final in (("It", False), ("It is", False), ("It is nine.", False), ("It is nine.", True)):
            ada.tell(Transcript(1, user=False, text=text, final=final))
            await asyncio.sleep(0)
        await until(lambda: local.streams[-1].closing)
        answer = local.streams[-1]
        assert len(local.streams) == 4
        assert "".join(answer.pieces) == "It is nine."
        assert answer.topic == "lk.transcription"
        assert answer.attributes["lk.transcribed_track_id"] == "TR_agent"
        assert answer.closing == {"lk.transcription_final": "true"}


async def test_the_state_is_an_attribute_and_events_are_data() -> None:
    server, house = FakeServer(), House()
    server.come("ada")
    async with staying(server, house):
        await until(lambda: house.opened)
        for state, told in (
            (State.LISTENING, "listening"),
            (State.THINKING, "thinking"),
            (State.SPEAKING, "speaking"),
            (State.HOLD, "speaking"),
            (State.SUSPENDED, "idle"),
        ):
            house.opened[0].tell(StateChanged(state, 1, 0))
            await until(lambda told=told: states(server)[-1] == told)  # type: ignore[misc]
        house.opened[0].tell(UserAway())
        data = server.room.local_participant.data
        await until(lambda: data and "away" in data[-1][1])
        assert {topic for topic, _ in data} == {"voice.events"}
        assert json.loads(data[0][1])["type"] == "voice.state"


async def test_chat_of_the_person_is_typed_and_of_others_is_not() -> None:
    server, house = FakeServer(), House()
    server.come("ada")
    async with staying(server, house):
        await until(lambda: house.opened)
        server.room.write("bob", "me too")
        server.room.write("ada", "x" * 9000)
        server.room.write("ada", "refuse")
        server.room.write("ada", "  ")
        server.room.write("ada", "what ", "time?")
        await until(lambda: house.opened[0].done)
        assert house.opened[0].done == [("type", "what time?")]


async def test_a_room_that_was_lost_is_joined_again_and_the_conversation_goes_on() -> None:
    server, house = FakeServer(), House()
    ada = server.come("ada")
    async with staying(server, house):
        await until(lambda: house.opened)
        before = house.opened[0].transport
        server.refusals = 2
        server.lose()
        await until(lambda: house.opened[0].done == ["suspend", "attach"])
        assert len(server.rooms) == 2
        assert house.opened[0].transport is not before
        track = FakeRemoteTrack()
        server.speak(ada, track)
        track.frames.put_nowait(b"\1\0" * 160)
        await until(lambda: house.opened[0].heard)
        house.opened[0].play(block(7))
        await until(lambda: server.room.local_participant.published[0].track.source.frames)


@pytest.mark.parametrize("reason", ["DUPLICATE_IDENTITY", "PARTICIPANT_REMOVED", "ROOM_DELETED"])
async def test_who_was_told_to_go_does_not_come_back(reason: str) -> None:
    server, house = FakeServer(), House()
    server.come("ada")
    async with staying(server, house) as (_, task):
        await until(lambda: house.opened)
        server.lose(rtc.DisconnectReason.Value(reason))
        await asyncio.wait([task])
        assert len(server.rooms) == 1
        assert house.opened[0].done[-1] == "close left"


async def test_a_person_who_comes_back_in_time_goes_on_where_they_were() -> None:
    server, house = FakeServer(), House()
    server.come("ada")
    async with staying(server, house):
        await until(lambda: house.opened)
        server.go("ada")
        server.come("eve")  # not for her
        server.come("ada")
        assert house.opened[0].done == ["suspend", "attach"]
        assert len(house.opened) == 1


def test_a_person_who_stays_away_is_forgotten_and_the_next_one_begins_anew() -> None:
    async def scene() -> None:
        server, house = FakeServer(), House()
        server.come("ada")
        async with staying(server, house):
            await until(lambda: house.opened)
            server.go("ada")
            await asyncio.sleep(31)
            assert house.opened[0].done == ["suspend", "close left"]
            server.come("bob")
            assert len(house.opened) == 2

    virtual_time.run(scene())


def test_a_dispatched_stay_ends_with_its_person() -> None:
    async def scene() -> None:
        server, house = FakeServer(), House()
        server.come("ada")
        async with staying(server, house, stays=False) as (_, task):
            await until(lambda: house.opened)
            server.go("ada")
            await asyncio.sleep(29)
            assert not task.done()
            await asyncio.sleep(2)
            await asyncio.wait([task])
            assert server.room.left

    virtual_time.run(scene())


async def test_a_full_house_leaves_the_room_it_was_dispatched_to() -> None:
    server, house = FakeServer(), House()
    house.refusal = Overloaded("full")
    server.come("ada")
    async with staying(server, house, stays=False) as (_, task):
        await asyncio.wait([task])
        assert server.room.left


def test_a_room_that_never_opens_is_given_up_with_its_reason() -> None:
    async def scene() -> None:
        server, house = FakeServer(), House()
        server.refusals = 1000
        async with staying(server, house) as (_, task):
            await asyncio.wait([task])
            error: Any = task.exception()
            assert isinstance(cause_of(error), rtc.ConnectError)

    virtual_time.run(scene())


async def test_leaving_closes_the_conversation_the_source_and_the_room() -> None:
    server, house = FakeServer(), House()
    server.come("ada")
    async with staying(server, house) as (stay, task):
        await until(lambda: house.opened)
        source = server.room.local_participant.published[0].track.source
        stay.leave()
        await asyncio.wait([task])
        assert (server.room.left, source.closed) == (True, True)
        assert house.opened[0].done == ["close left"]


async def test_a_conversation_that_ends_frees_the_room_for_the_next() -> None:
    server, house = FakeServer(), House()
    server.come("ada")
    async with staying(server, house):
        await until(lambda: house.opened)
        transport: RoomTransport = house.opened[0].transport
        await transport.close("idle")
        await asyncio.sleep(0.01)
        server.come("bob")
        assert len(house.opened) == 2
