"""The soak, shortened: a minute of everything that people do to conversations, and what it makes of what it sees."""

from __future__ import annotations

import asyncio
import json
import os
from collections import Counter

import pytest

from bench import soak
from bench.soak_calls import Ledger, Lost
from bench.soak_watch import Watched, slope_per_hour


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


def test_this_process_can_be_watched() -> None:
    watched = Watched("me", os.getpid())
    watched.look()
    kept = [open(os.devnull) for _ in range(3)]  # noqa: SIM115
    watched.look()
    for one in kept:
        one.close()
    before, after = watched.seen
    assert before.memory_mib > 10
    assert after.files - before.files == 3


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
