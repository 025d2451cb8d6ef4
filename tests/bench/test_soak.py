"""The soak, shortened: a minute of everything that people do to conversations, and what it makes of what it sees."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any, cast

import grpc
import pytest

from bench import soak
from bench.report import Report
from bench.soak_calls import GrpcCall, Ledger, Lost, Stuck
from bench.soak_watch import Holding, Watched, slope_per_hour
from tests.edges import gateway
from tests.fakes import ScriptedBrain


@pytest.mark.load
@pytest.mark.timeout(240)
def test_a_short_soak_finds_no_fault(capsys: pytest.CaptureFixture[str]) -> None:
    code = soak.main(["--minutes", "0.7", "--conversations", "3", "--webrtc", "1", "--every-s", "1", "--json"])
    printed = capsys.readouterr()
    document = json.loads(printed.out)
    figures = {(one["name"], one.get("process")): one for one in document["figures"]}
    counted = {name: one["value"] for (name, process), one in figures.items() if process is None and "value" in one}
    found = set(soak.faults(Counter(counted)))
    if os.getloadavg()[0] > 2 * (os.cpu_count() or 1):
        found.discard("answers_failed")  # others leave too little of the machine for answers to come in time
    assert not found, printed.err + json.dumps(document["configuration"]["stuck_or_lost"], indent=1)
    assert code in (0, 1)
    assert figures["turns", None]["value"] >= 5
    assert figures["packets", None]["value"] >= 200
    assert figures["rtp_packets", None]["value"] >= 500
    for service in ("gateway", "brain", "tts_lm", "codec"):
        assert figures["memory_mib", service]["n"] >= 20
        assert ("memory_growth_mib_per_hour", service) in figures


def test_a_slope_is_that_of_most_samples() -> None:
    leaking = [(second, 100.0 + second / 36) for second in range(0, 3600, 5)]
    jumping = [(at_s, mib + (50.0 if number % 10 == 0 else 0.0)) for number, (at_s, mib) in enumerate(leaking)]
    assert slope_per_hour(leaking) == pytest.approx(100.0)
    assert slope_per_hour(jumping) == pytest.approx(100.0, rel=0.1)
    assert slope_per_hour([(0.0, 5.0), (10.0, 5.0), (20.0, 5.0)]) == 0.0


@pytest.mark.parametrize(
    ("what", "step", "found"),
    [
        ("memory_mib", 0.05, {"memory_of_gateway_grow"}),  # 36 MiB an hour
        ("open_files", 1, {"open_files_of_gateway_grow"}),
        ("threads", 1, {"threads_of_gateway_grow"}),
        ("memory_mib", 0.005, set()),  # 3.6
    ],
)
def test_what_grows_after_the_warm_up_is_a_fault(what: str, step: float, found: set[str]) -> None:
    """Every 5 s one step; before the warm-up is over everything may grow."""
    arguments = argparse.Namespace(minutes=60, warm_up_minutes=10, conversations=4, max_growth_mib=1.0)
    watched = Watched("gateway", 0)
    for number in range(720):
        held = Holding(5.0 * number, 100.0 + min(number, 120), 20 + min(number, 120), 40 + min(number, 120))
        watched.seen.append(replace(held, **{what: getattr(held, what) + step * number}))
    counts: Counter[str] = Counter()
    report = Report("soak", {})
    soak.judge(report, arguments, counts, [watched], began_s=0.0)
    assert set(soak.faults(counts)) == found


def test_this_process_can_be_watched() -> None:
    watched = Watched("me", os.getpid())
    watched.look()
    kept = [open(os.devnull) for _ in range(3)]  # noqa: SIM115
    watched.look()
    for one in kept:
        one.close()
    before, after = watched.seen
    assert before.memory_mib > 10
    assert after.open_files - before.open_files == 3


def test_sound_after_an_end_and_a_second_end_are_faults() -> None:
    ledger = Ledger(Counter())
    ledger.began(3, 1)
    ledger.sounds(3)
    ledger.ended(3, "COMPLETED")
    assert not soak.faults(ledger.counts)
    ledger.sounds(3)
    ledger.ended(3, "COMPLETED")
    assert set(soak.faults(ledger.counts)) == {"packets_of_answers_that_are_over", "answers_ended_unbegun"}


async def test_whoever_waits_for_a_conversation_that_is_gone_is_told() -> None:
    ledger = Ledger(Counter())
    waiting = asyncio.ensure_future(ledger.until(lambda: ledger.is_settled))
    await asyncio.sleep(0)
    ledger.gone("UNAVAILABLE")
    with pytest.raises(Lost, match="UNAVAILABLE"):
        await waiting


class Idle:
    """A call of which nothing comes but what the test says."""

    kind = "grpc"

    def __init__(self) -> None:
        self.ledger = Ledger(Counter(), state="listening")
        self.is_lost = False

    async def open(self, resume_token: str = "") -> None:
        await self.ledger.until(lambda: False)

    async def lose(self) -> str:
        self.is_lost = True
        return ""


@asynccontextmanager
async def visiting(turn_limit_s: float) -> AsyncIterator[tuple[soak.Visitor, Idle]]:
    nobody: Any = None
    house = soak.House(nobody, nobody, "", turn_limit_s, Counter(), [], {})
    visitor, call = soak.Visitor(house, "grpc", random.Random(1)), Idle()
    visitor._open = cast(Any, call)
    yield visitor, call
    assert not [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]


async def test_a_turn_of_which_nothing_moves_is_stuck() -> None:
    async with visiting(0.1) as (visitor, call):
        call.ledger.began(1, 1)
        with pytest.raises(Stuck, match="nothing moves after ask"):
            await visitor._act("ask", visitor._settled)


async def test_a_long_answer_is_not_stuck_while_it_moves() -> None:
    async with visiting(0.2) as (visitor, call):
        call.ledger.began(1, 1)

        async def tell() -> None:
            for _ in range(8):
                await asyncio.sleep(0.05)
                call.ledger.sounds(1)
            call.ledger.ended(1, "COMPLETED")

        telling = asyncio.create_task(tell())
        await visitor._act("ask", visitor._settled)
        await telling


async def test_an_answer_without_an_end_is_stuck_though_it_moves() -> None:
    async with visiting(0.05) as (visitor, call):

        async def tell() -> None:
            while True:
                call.ledger.moved()
                await asyncio.sleep(0.01)

        with pytest.raises(Stuck, match="no end after ask"):
            await visitor._act("ask", tell)


async def test_a_call_that_was_not_taken_up_in_time_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    call = Idle()
    monkeypatch.setattr(soak, "GrpcCall", lambda channel, ledger: call)
    async with visiting(0.05) as (visitor, _):
        with pytest.raises(Lost, match="not taken up again in time"):
            await visitor._opens("token")
        await visitor._abandon()
    assert call.is_lost


def test_why_an_answer_failed_is_counted() -> None:
    ledger = Ledger(Counter())
    for epoch, why in enumerate(("DEPENDENCY_DOWN", "dependency_down", "")):
        ledger.began(epoch, epoch)
        ledger.ended(epoch, "FAILED", why)
    assert (ledger.counts["failed_for_dependency_down"], ledger.counts["failed_for_no_reason"]) == (2, 1)


async def test_whoever_leaves_does_so_between_two_messages() -> None:
    """grpc.aio ends a call of which a write is cancelled: it would not be left then, but lost."""
    async with gateway(brain=ScriptedBrain()) as server, grpc.aio.insecure_channel(server.address) as channel:
        for _ in range(20):
            call = GrpcCall(channel, Ledger(Counter()))
            await call.open()
            await asyncio.sleep(0.01)
            async with asyncio.timeout(5.0):
                await call.leave()
            assert call.ledger.last[-1].endswith("the stream ended")
