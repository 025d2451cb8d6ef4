"""aiortc on both ends of a loopback: what is said is heard, once and in order, and a person who is gone is missed."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
import weakref
from itertools import pairwise

import numpy as np
import pytest
import uvloop

from common.errors import InvalidRequest, Overloaded
from services.gateway.media.networks import IceServer, Network
from services.gateway.media.webrtc import CHANNEL, UNCOLLECTED_PEERS, MediaSettings, Peer, WebRtc
from services.gateway.session.ports import Backchannel, Transport
from tests.gateway.media.people import LOOPBACK, QUIET, Person, Talk, Texts, call, house, until
from tests.impairment.path import Impairment

TONE = (8000 * np.sin(2 * np.pi * 500 * np.arange(24000) / 24000)).astype(np.int16)


async def test_what_a_person_says_is_heard_at_16_khz() -> None:
    async with house() as at, call(at) as one:
        one.person.speech = lambda number: TONE[:480]
        await until(lambda: one.talk.sound.size > 16000)
        heard = one.talk.sound[-8000:].astype(float)
        peak = np.argmax(np.abs(np.fft.rfft(heard))) * 16000 / 8000
        assert peak == pytest.approx(500, abs=4)
        assert one.peer.stats.received.ok > 40


async def test_what_is_played_arrives_whole_and_silence_is_sent() -> None:
    async with house() as at, call(at) as one:
        await until(lambda: len(one.person.arrivals) > 10)
        speech = TONE
        one.talk.playout.enqueue(1, 0, speech)
        one.talk.playout.end(1)
        await until(lambda: one.talk.playout.sent(1) == speech.size)
        count = len(one.talk.blocks) + 5
        await until(lambda: len(one.person.arrivals) > count)
        loud = np.abs(one.person.heard().astype(int)) > 300
        assert 0.8 < (np.flatnonzero(loud).max() - np.flatnonzero(loud).min()) / 24000 < 1.1
        assert [epoch for epoch, _ in one.talk.encoded] == [1]
        assert sum(arrival.marker for arrival in one.person.arrivals) == 1  # of the first that was said
        sequence = [arrival.sequence for arrival in one.person.arrivals]
        assert {(later - first) & 0xFFFF for first, later in pairwise(sequence)} == {1}


async def test_events_wait_for_their_channel_and_go_both_ways() -> None:
    async with house() as at, call(at) as one:
        one.peer.tell(Backchannel())
        await until(lambda: one.person.channel.readyState == "open")
        one.person.channel.send("hello")
        await until(lambda: "you said 'hello'" in one.person.texts)
        assert one.person.texts[0] == '{"opened": "s"}'
        assert "Backchannel()" in one.person.texts
        assert one.talk.texts == ["hello"]
        assert one.person.channel.label == CHANNEL


async def test_a_person_who_leaves_suspends_the_conversation() -> None:
    async with house() as at, call(at) as one:
        await until(lambda: one.talk.heard)
        await one.person.close()
        await until(lambda: one.talk.suspended)
        await until(lambda: not at.webrtc.peers)


async def test_a_person_of_whom_nothing_comes_is_missed() -> None:
    async with house(MediaSettings(lost_s=0.8)) as at, call(at, up=Impairment()) as one:
        await until(lambda: one.talk.heard)
        assert one.relay is not None
        one.relay.blocked = True
        await until(lambda: one.talk.suspended)
        assert one.peer.closed


async def test_nobody_is_missed_because_we_stood_still_ourselves() -> None:
    async with house(MediaSettings(lost_s=0.8)) as at, call(at) as one:
        await until(lambda: one.talk.heard)
        time.sleep(2.0)  # noqa: ASYNC251 - that is the point
        await asyncio.sleep(1.5)
        assert not one.talk.suspended


async def test_closed_peers_do_not_wait_for_a_full_collection() -> None:
    person = Person()
    offer = await person.offer()
    known: list[weakref.ref[Peer]] = []
    gc.disable()
    try:
        async with house() as at:
            for _ in range(3 * UNCOLLECTED_PEERS):
                known.append(weakref.ref((await at.accept(offer)).peer))
                await at.talks.pop().close("enough")
            assert sum(one() is not None for one in known) <= UNCOLLECTED_PEERS + 1
    finally:
        gc.enable()
        await person.close()


async def test_a_person_without_a_microphone_is_not_missed() -> None:
    settings = MediaSettings(lost_s=0.2, lost_listener_s=20)
    async with house(settings) as at, call(at, speaks=False) as one:
        await until(lambda: len(one.person.arrivals) > 50)
        assert not one.talk.suspended
        assert one.talk.heard == []


async def test_an_offer_that_nobody_follows_keeps_no_place() -> None:
    person = Person()
    async with house(MediaSettings(connect_s=0.1)) as at:
        await at.accept(await person.offer())
        (talk,) = at.talks
        await until(lambda: talk.closed)
        assert not talk.suspended
        await until(lambda: not at.webrtc.peers)
    await person.close()


async def test_calls_leave_neither_threads_nor_tasks_behind() -> None:
    async with house() as at:
        async with call(at) as one:
            await until(lambda: one.talk.heard)
        before = threading.active_count()
        for _ in range(4):
            async with call(at) as one:
                await until(lambda: one.talk.heard)
        await until(lambda: not at.webrtc.peers)
        await until(lambda: threading.active_count() <= before)
        await until(lambda: asyncio.all_tasks() == {asyncio.current_task()})


async def test_a_conversation_that_closes_hangs_up() -> None:
    async with house() as at, call(at) as one:
        await until(lambda: one.talk.heard)
        await one.talk.close("said goodbye")
        await one.peer.close("again")
        assert not at.webrtc.peers
        assert not one.talk.suspended


async def test_reports_of_loss_raise_the_redundancy() -> None:
    async with house() as at, call(at, down=Impairment(loss=0.3), seed=4) as one:
        await until(lambda: one.peer.stats.expected_loss > 0.1)
        await until(lambda: one.peer.stats.round_trip_s is not None)


def test_a_call_runs_on_uvloop_too() -> None:
    async def scenario() -> None:
        wrong: list[object] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, what: wrong.append(what))
        bad = Impairment(delay_s=0.02, jitter_s=0.05, loss=0.1)
        async with house() as at, call(at, up=bad, seed=3) as one:
            await until(lambda: one.peer.stats.received.concealed + one.peer.stats.received.recovered > 3)
        assert wrong == []

    uvloop.run(scenario())


async def test_a_stun_server_that_is_silent_delays_the_answer_little() -> None:
    loop = asyncio.get_running_loop()
    silent, _ = await loop.create_datagram_endpoint(asyncio.DatagramProtocol, local_addr=("127.0.0.1", 0))
    port = silent.get_extra_info("sockname")[1]
    gateway = WebRtc(Network((IceServer(f"stun:127.0.0.1:{port}"),), interfaces=("127.0.0.0/8",)), MediaSettings())
    person = Person()
    offer = await person.offer()
    async with house() as at:
        began_s = loop.time()
        accepted = await gateway.accept(offer, at.open, Texts)
        assert 0.3 <= loop.time() - began_s < 4  # aiortc would have waited for 5 s
        assert "typ host" in accepted.answer
        await gateway.close()
    await person.close()
    silent.close()


@pytest.mark.parametrize(
    "sdp", ["", "hello", "v=0\r\n", "v=0\r\no=- 0 0 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\nm=audio x y\r\n"]
)
async def test_what_is_no_offer_is_refused(sdp: str) -> None:
    async with house() as at:
        with pytest.raises(InvalidRequest):
            await at.accept(sdp)
        assert not at.webrtc.peers
        assert not at.talks


async def test_an_offer_without_opus_or_too_long_is_refused() -> None:
    async with house() as at:
        person = Person()
        offer = await person.offer()
        lines = [line.replace("opus", "speex") for line in offer.split("\r\n")]
        for bad in (
            "\r\n".join(line for line in lines if "PCM" not in line and "G722" not in line),
            offer + "x" * 70000,
        ):
            with pytest.raises(InvalidRequest):
                await at.accept(bad)
        await person.close()


async def test_a_full_house_refuses_before_anything_is_gathered() -> None:
    def full(transport: Transport) -> Talk:
        raise Overloaded("full", retry_after_s=1.0)

    person = Person()
    gateway = WebRtc(LOOPBACK, QUIET)
    with pytest.raises(Overloaded):
        await gateway.accept(await person.offer(), full, Texts)
    assert not gateway.peers
    await person.close()


async def test_video_is_answered_but_not_taken() -> None:
    person = Person()
    person.connection.addTransceiver("video", direction="sendrecv")
    async with house() as at:
        accepted = await at.accept(await person.offer())
        video = accepted.answer.partition("m=video")[2]
        assert "a=inactive" in video
    await person.close()


async def test_advertised_addresses_stand_in_the_answer() -> None:
    gateway = WebRtc(Network(interfaces=("127.0.0.0/8",), advertised_addresses=("203.0.113.5",)), QUIET)
    person = Person()
    async with house() as at:
        accepted = await gateway.accept(await person.offer(), at.open, Texts)
        candidates = [line for line in accepted.answer.split("\r\n") if line.startswith("a=candidate")]
        assert candidates
        assert all(line.split()[4] == "203.0.113.5" for line in candidates)
        assert "127.0.0.1" not in accepted.answer
        await gateway.close()
    await person.close()
