"""Each stage halts for 0.6 s while a conversation speaks: a pause is heard, and nothing else.

The stages are real gRPC servers behind relays that stop; what is heard is noted in the pacer's thread, as it goes out.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from common.stream import FinishReason
from common.telemetry import Telemetry
from common.voice_store import VoiceStore
from services.gateway.clients import Stages
from services.gateway.pipeline import SpeechLine
from services.gateway.session import ports
from services.gateway.session.house import Numbers
from services.gateway.session.keeping import Conversations, Manner
from services.gateway.turns.settings import TurnSettings
from tests.edges import serving
from tests.fakes import ScriptedBrain, ToneTtsLm, speak, tone
from tests.gateway.session.home import TERMS, Client
from tests.impairment.tcp import TcpRelay

WORDS = [f"w{number:02d} " for number in range(30)]  # 10 s of speech
STALL_S = 0.6
BLOCK = 480


class Ear(Client):
    """Notes when each block went out."""

    def __init__(self) -> None:
        super().__init__()
        self.times: list[float] = []
        self.lag_s = 0.0

    async def watch_lag(self) -> None:
        """How much a busy machine itself kept from this process: no stage can be held to it."""
        while True:
            began_s = time.monotonic()
            await asyncio.sleep(0.01)
            self.lag_s += max(0.0, time.monotonic() - began_s - 0.015)

    def play(self, block: ports.Block) -> None:
        if block.is_speech:
            self.times.append(time.monotonic())
        super().play(block)


@asynccontextmanager
async def relayed() -> AsyncIterator[tuple[Conversations, dict[str, TcpRelay]]]:
    """Conversations over stages that are faster than speech."""
    engines = {
        "brain": ScriptedBrain(lambda words: WORDS, step_s=0.05),
        "tts_lm": ToneTtsLm(step_s=0.01),
        "codec": None,
    }
    async with AsyncExitStack() as stack:
        relays = {}
        for name, engine in engines.items():
            server = await stack.enter_async_context(serving(name, engine))
            relays[name] = await stack.enter_async_context(TcpRelay(server.address))
        stages = Stages(relays["tts_lm"].address, relays["codec"].address, brain_address=relays["brain"].address)
        stack.push_async_callback(stages.close)
        await stages.look()
        conversations = Conversations(Manner(TurnSettings(user_away_s=0.0, stall_s=5.0), Numbers()), Telemetry.off())
        conversations.start(stages, lambda: SpeechLine(stages, TERMS, VoiceStore("/nonexistent")))
        stack.push_async_callback(conversations.close)
        yield conversations, relays


@pytest.mark.fault
@pytest.mark.timeout(90)
@pytest.mark.parametrize("stage", ["brain", "tts_lm", "codec"])
async def test_a_stage_that_halts_makes_a_pause_and_no_overlap_repeat_burst_or_delay(stage: str) -> None:
    async with relayed() as (conversations, relays):
        ear = Ear()
        lag = asyncio.create_task(ear.watch_lag())
        conversations.registry.open(ear, ports.SessionSettings()).type("go")
        for at_s in (1.5, 4.0):  # twice: a delay that grows would have grown
            await ear.heard(at_s)
            relays[stage].stall()
            await asyncio.sleep(STALL_S)
            relays[stage].resume()
        ended = await ear.told(ports.AnswerEnded)
        lag.cancel()
    assert (ended.reason, ended.heard_text) == (FinishReason.COMPLETED, "".join(WORDS))
    assert len(ear.all(ports.AnswerStarted)) == 1
    nothing_is_lost_or_said_twice(ear)
    nothing_bursts(ear.times)
    no_delay_is_left(ear)


def nothing_is_lost_or_said_twice(ear: Ear) -> None:
    blocks = [block for block in ear.blocks if block.is_speech]
    assert len({block.epoch for block in blocks}) == 1
    for before, after in pairwise(blocks):
        assert 0 < after.first_sample_offset - before.first_sample_offset <= BLOCK, "a sample is missing or heard twice"
    expected, _ = tone(speak("".join(WORDS), seed=0))
    faded = pauses(ear)
    assert len(faded) <= max(8, len(blocks) / 2), "it stammers"
    for number, block in enumerate(blocks[:-1]):
        at = block.first_sample_offset
        if number not in faded:
            ours, theirs = block.samples.astype(int), expected[at : at + BLOCK].astype(int)
            assert np.abs(ours - theirs).max() <= 1, f"other samples at {at}"


def pauses(ear: Ear) -> set[int]:
    """Blocks beside a pause or a beginning: they fade."""
    blocks = [block for block in ear.blocks if block.is_speech]
    found = {0, 1}
    for number, (before, after) in enumerate(pairwise(blocks)):
        is_short = after.first_sample_offset - before.first_sample_offset < BLOCK
        if is_short or ear.times[number + 1] - ear.times[number] > 0.03:
            found |= {number - 1, number, number + 1, number + 2}
    return found


def nothing_bursts(times: list[float]) -> None:
    """Five blocks in 100 ms and one that was late; two more, as the ear's thread too may be kept waiting."""
    for number, began_s in enumerate(times):
        within = sum(1 for at_s in times[number : number + 12] if at_s < began_s + 0.1)
        assert within <= 8, f"{within} blocks in 100 ms"


def no_delay_is_left(ear: Ear) -> None:
    """A block is as late as all pauses before it are long; none is longer than what made it, and going on again."""
    blocks = [block for block in ear.blocks if block.is_speech]
    gaps = [after - before - 0.02 for before, after in pairwise(ear.times) if after - before > 0.06]
    assert sum(gaps) <= 2 * (STALL_S + 0.3) + ear.lag_s, "the pauses are longer than what made them"
    late_s = [at_s - block.first_sample_offset / 24000 for at_s, block in zip(ear.times, blocks, strict=True)]
    assert late_s[-1] - late_s[0] <= sum(gaps) + 0.15 + ear.lag_s, "there is a delay that no pause explains"


def test_the_checks_see_what_they_are_for() -> None:
    with pytest.raises(AssertionError, match="in 100 ms"):
        nothing_bursts([0.02 * number for number in range(10)] + [0.2 + 0.001 * number for number in range(10)])
    nothing_bursts([0.02 * number for number in range(100)])


def heard(*offsets: int, every_s: float = 0.02) -> Any:
    samples, _ = tone(speak("".join(WORDS), seed=0))
    ear = Ear.__new__(Ear)
    ear.blocks = [ports.Block(samples[at : at + BLOCK], True, 1, at) for at in offsets]
    ear.times = [every_s * number for number in range(len(offsets))]
    ear.lag_s = 0.0
    return ear


@pytest.mark.parametrize(
    ("offsets", "what"),
    [((0, 480, 480, 960), "twice"), ((0, 480, 1440, 1920), "missing"), ((0, 480, 960, 1440), "")],
)
def test_a_sample_twice_or_never_is_seen(offsets: tuple[int, ...], what: str) -> None:
    if what:
        with pytest.raises(AssertionError, match="missing or heard twice"):
            nothing_is_lost_or_said_twice(heard(*offsets))
    else:
        nothing_is_lost_or_said_twice(heard(*offsets))


def test_a_delay_that_no_pause_explains_is_seen() -> None:
    with pytest.raises(AssertionError, match="no pause explains"):
        no_delay_is_left(heard(*range(0, 480 * 40, 480), every_s=0.03))
