"""A stream to a stage, however it ends, leaves nothing behind in the gateway."""

from __future__ import annotations

import asyncio

import pytest
from voicemesh.stream.v1 import stream_pb2
from voicemesh.tts_lm.v1 import tts_lm_pb2

from common.errors import OutOfOrder
from services.gateway.clients import Stages
from tests.conformance.house import until
from tests.edges import serving

START = tts_lm_pb2.GenerateRequest(start=tts_lm_pb2.GenerateStart())
TOO_EARLY = tts_lm_pb2.GenerateRequest(flush=stream_pb2.Flush())


async def test_a_stream_that_the_stage_ended_leaves_no_task():
    async with serving("tts_lm") as server:
        stages = Stages(server.address, server.address)
        await stages.look()
        before = len(asyncio.all_tasks())
        for _ in range(10):
            stream = stages.generate(stages.tts_lm.all[0])
            stream.send(TOO_EARLY)
            with pytest.raises(OutOfOrder):
                await stream.receive()
            stream.hang_up()
        await until(lambda: len(asyncio.all_tasks()) <= before)
        await stages.close()


async def test_a_stream_that_was_hung_up_leaves_no_task():
    async with serving("tts_lm") as server:
        stages = Stages(server.address, server.address)
        await stages.look()
        before = len(asyncio.all_tasks())
        for number in range(30):
            stream = stages.generate(stages.tts_lm.all[0])
            stream.send(START)
            if number % 3:
                await stream.receive()
            stream.hang_up()
        await until(lambda: len(asyncio.all_tasks()) <= before)
        await stages.close()
