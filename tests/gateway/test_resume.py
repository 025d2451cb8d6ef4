"""Replicas that refuse, die and come back: what the caller hears is the same, or one honest end."""

from __future__ import annotations

import gc
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import grpc
import pytest

from common.errors import Broken, InvalidRequest, NotReady, Overloaded
from common.serving import Server
from common.stream import FinishReason
from services.gateway.clients import StageStream
from services.gateway.config import GatewayConfig
from services.gateway.server import Gateway, register
from services.gateway.utterance import SpeechUtterance
from tests.edges import serving
from tests.fakes import Refusing, ToneCodec, ToneTtsLm, speak, tone
from tests.gateway.caller import Caller, calling, dialled, opened, reason_of, until

TEXT = "The quick brown fox jumps over the lazy dog."


def sound(text: str = TEXT, seed: int = 7) -> bytes:
    return bytes(tone(speak(text, seed))[0].tobytes())


@dataclass
class Mesh:
    """A gateway over several replicas of each stage."""

    caller: Caller
    address: str
    gateway: Gateway
    talkers: list[tuple[Any, Server]]
    codecs: list[tuple[Any, Server]]

    def busy(self, replicas: list[tuple[Any, Server]]) -> list[Server]:
        """Those that hold a slot now."""
        return [server for engine, server in replicas if engine.pool.free_count < engine.pool.total]


@asynccontextmanager
async def mesh(talkers: list[Any], codecs: list[Any], **settings: Any) -> AsyncIterator[Mesh]:
    async with AsyncExitStack() as stack:
        below = [(engine, await stack.enter_async_context(serving("tts_lm", engine))) for engine in talkers]
        beside = [(engine, await stack.enter_async_context(serving("codec", engine))) for engine in codecs]
        config = GatewayConfig(
            port=0,
            metrics=False,
            tts_lm_address=",".join(server.address for _, server in below),
            codec_address=",".join(server.address for _, server in beside),
            **settings,
        )
        gateway, server = Gateway(config), Server(config)
        register(server, gateway, config)
        await server.start()
        stack.push_async_callback(gateway.close)
        stack.push_async_callback(server.stop)
        await gateway.start()
        await server.set_ready(True)
        caller = await stack.enter_async_context(calling(server.address))
        yield Mesh(caller, server.address, gateway, below, beside)


async def test_a_talker_lost_in_mid_sentence_costs_no_sample() -> None:
    async with mesh([ToneTtsLm(step_s=0.005) for _ in range(2)], [ToneCodec()]) as it:
        await it.caller.start()
        await it.caller.text(TEXT[:30])
        await it.caller.heard(11)
        (spoke,) = it.busy(it.talkers)
        await spoke.stop()
        await it.caller.text(TEXT[30:])
        await it.caller.flush()
        await it.caller.to_end()
        assert (it.caller.reason, it.caller.pcm) == (FinishReason.COMPLETED, sound())
        assert it.caller.ended.text_token_count == len(TEXT)
        assert it.caller.ended.frame_count == len(speak(TEXT))


async def test_a_codec_lost_in_mid_sentence_costs_no_sample() -> None:
    async with mesh([ToneTtsLm(step_s=0.005)], [ToneCodec() for _ in range(2)]) as it:
        await it.caller.start()
        await it.caller.text(TEXT)
        await it.caller.heard(11)
        (spoke,) = it.busy(it.codecs)
        await spoke.stop()
        await it.caller.flush()
        await it.caller.to_end()
        assert (it.caller.reason, it.caller.pcm) == (FinishReason.COMPLETED, sound())
        assert [packet.frame_count for packet in it.caller.packets].count(0) == 0
        assert it.caller.frame_count == len(speak(TEXT))


async def test_both_stages_may_be_lost_again_and_again() -> None:
    async with mesh([ToneTtsLm(step_s=0.005) for _ in range(3)], [ToneCodec() for _ in range(3)]) as it:
        await it.caller.start()
        await it.caller.text(TEXT)
        for frames in (5, 20):
            await it.caller.heard(frames)
            for server in (*it.busy(it.talkers), *it.busy(it.codecs)):
                await server.stop()
        await it.caller.flush()
        await it.caller.to_end()
        assert (it.caller.reason, it.caller.pcm) == (FinishReason.COMPLETED, sound())


async def test_a_talker_lost_while_it_waits_for_text_or_credit_is_replaced_too() -> None:
    async with mesh([ToneTtsLm() for _ in range(2)], [ToneCodec()], resume_timeout_s=5.0) as it:
        await it.caller.start(speech={"max_lead_frames": 9})
        await it.caller.text(TEXT[:10])
        await it.caller.heard(9)
        (spoke,) = it.busy(it.talkers)
        await spoke.stop()
        await it.caller.text(TEXT[10:])
        await it.caller.flush()
        await it.caller.credit(4000)
        await it.caller.to_end()
        assert it.caller.pcm == sound()


async def test_the_limit_of_frames_holds_over_all_replicas() -> None:
    async with mesh([ToneTtsLm() for _ in range(2)], [ToneCodec()]) as it:
        await it.caller.start(speech={"max_frames": 20, "max_lead_frames": 8})
        await it.caller.text(TEXT)
        await it.caller.heard(8)
        (spoke,) = it.busy(it.talkers)
        await spoke.stop()
        await it.caller.credit(4000)
        ended = await it.caller.to_end()
        assert (it.caller.reason, ended.frame_count, it.caller.frame_count) == (FinishReason.LENGTH, 20, 20)
        assert sound().startswith(it.caller.pcm)


async def test_when_nobody_is_left_the_caller_is_told_that_a_dependency_is_down() -> None:
    async with mesh([ToneTtsLm(step_s=0.005)], [ToneCodec()], resume_timeout_s=0.3) as it:
        await it.caller.start()
        await it.caller.text(TEXT)
        await it.caller.heard(5)
        await it.talkers[0][1].stop()
        ended = await it.caller.to_end()
        assert (it.caller.reason, reason_of(ended)) == (FinishReason.FAILED, "DEPENDENCY_DOWN")
        assert sound().startswith(it.caller.pcm)
        await until(lambda: it.codecs[0][0].pool.free_count == it.codecs[0][0].pool.total)


async def test_who_never_answered_is_told_so_within_the_connect_timeout() -> None:
    async with mesh([ToneTtsLm()], [ToneCodec()], connect_timeout_s=0.2) as it:
        await it.codecs[0][1].stop()
        ended = await it.caller.say(TEXT)
        assert (it.caller.reason, reason_of(ended)) == (FinishReason.FAILED, "DEPENDENCY_DOWN")


@pytest.mark.parametrize("refusal", [Overloaded("full"), NotReady("loading"), Broken("on fire")])
async def test_a_refusal_sends_the_utterance_to_the_next_replica(refusal: Any) -> None:
    talkers = [Refusing(ToneTtsLm(), refusal), ToneTtsLm()]
    codecs = [Refusing(ToneCodec(), refusal), ToneCodec()]
    async with mesh(talkers, codecs) as it:
        for _ in range(3):
            await it.caller.say(TEXT)
            assert (it.caller.reason, it.caller.pcm) == (FinishReason.COMPLETED, sound())


async def test_a_full_house_refuses_at_once_and_goes_on_with_whom_it_has() -> None:
    talkers = [ToneTtsLm(slot_count=1), ToneTtsLm(slot_count=1)]
    async with mesh(talkers, [ToneCodec()], connect_timeout_s=30.0) as it, dialled(it.address) as channel:
        other, third = opened(channel), opened(channel)
        for caller in (it.caller, other):
            await caller.start()
            await caller.text(TEXT)
            await caller.heard(1)
        ended = await third.say(TEXT)
        assert (third.reason, reason_of(ended)) == (FinishReason.FAILED, "NO_SLOT")
        for caller in (it.caller, other):
            await caller.flush()
            await caller.to_end()
            assert caller.pcm == sound()
        await third.say(TEXT)
        assert third.pcm == sound()


async def test_what_every_replica_would_refuse_is_asked_of_one() -> None:
    asked = []

    class Counting(Refusing):
        def submit(self, request: object) -> Any:
            asked.append(request)
            return super().submit(request)

    talkers = [Counting(ToneTtsLm(), InvalidRequest("no")) for _ in range(3)]
    async with mesh(talkers, [ToneCodec()]) as it:
        ended = await it.caller.say(TEXT)
        assert (it.caller.reason, reason_of(ended), len(asked)) == (FinishReason.FAILED, "INVALID", 1)


async def test_a_session_stays_with_its_replica_while_that_has_room() -> None:
    async with mesh([ToneTtsLm() for _ in range(3)], [ToneCodec() for _ in range(3)]) as it:
        homes = set()
        for _ in range(6):
            await it.caller.start()
            await it.caller.text("home")
            await it.caller.heard(1)
            homes.add((it.busy(it.talkers)[0].address, it.busy(it.codecs)[0].address))
            await it.caller.flush()
            await it.caller.to_end()
        assert len(homes) == 1


async def test_nothing_is_kept_once_an_utterance_is_over_however_it_ended() -> None:
    async with mesh([ToneTtsLm(step_s=0.002) for _ in range(2)], [ToneCodec() for _ in range(2)]) as it:
        stages = it.gateway.stages
        for how in ("whole", "stopped", "refused", "lost"):
            await it.caller.start(speech={"language": "klingon" if how == "refused" else ""})
            await it.caller.text(TEXT)
            if how in ("stopped", "lost"):
                await it.caller.heard(3)
            if how == "stopped":
                await it.caller.stop()
            elif how == "lost":
                await it.busy(it.codecs)[0].stop()
            if how != "stopped":
                await it.caller.flush()
            await it.caller.to_end()
            replicas = (*stages.tts_lm.all, *stages.codec.all)
            await until(lambda replicas=replicas: not any(replica.streams for replica in replicas))
        await it.caller.call.done_writing()
        assert await it.caller.call.read() is grpc.aio.EOF
        del it.caller
        gc.collect()
        kept = [kind for kind in map(type, gc.get_objects()) if kind in (SpeechUtterance, StageStream)]
        assert not kept
