"""Many listeners in virtual time, through the real loop and the real schedulers: nobody starves or waits in vain."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench import simulate
from bench.playback import listen
from bench.simulation import FRAME_S, House, Machine, Speech, Times
from common.observer import NOBODY
from common.stream import FinishReason
from services.tts_lm.scheduler import Policy


def summary(seconds: float) -> dict[str, float]:
    return dict.fromkeys(("min", "p50", "p95", "p99", "max"), seconds)


def report(base_s: float = 0.004, row_s: float = 0.001, prompt_row_s: float = 0.0005) -> dict[str, Any]:
    """A machine whose steps cost a little and whose rows cost more."""
    steps = [{"name": "step_s", "stage": "tts_lm", "rows": n, **summary(base_s + row_s * n)} for n in (1, 2, 8, 64)]
    prompts = [{"name": "prefill_s", "rows": n, **summary(base_s + row_s + prompt_row_s * n)} for n in (8, 512)]
    shapes = [(1, 1), (1, 2), (1, 4), (2, 1), (2, 2), (4, 1)]
    codec = [{"name": "step_s", "stage": "codec", "rows": r, "frames": f, **summary(0.001 * r * f)} for r, f in shapes]
    facts = {"name": "steps", "time": "", "commit": "", "machine": {"cpu": ""}, "configuration": {}}
    return facts | {"figures": [*steps, *prompts, *codec]}


def frames_of(speech: Speech) -> int:
    return sum(count for _, count in speech.frames)


utterances = st.lists(
    st.tuples(st.floats(0, 5), st.integers(1, 120), st.sampled_from([0.0, 5.0, 50.0])), min_size=1, max_size=40
)


@settings(max_examples=30, deadline=None)
@given(utterances, st.sampled_from([None, 1, 3, 16]), st.sampled_from([0.05, 1.0, 1000.0]))
def test_everyone_is_spoken_to_the_end_whatever_the_load_and_the_policy(
    asked: list[tuple[float, int, float]], max_batch: int | None, ceiling_s: float
) -> None:
    house = House(Machine.read(report()), policy=Policy(ceiling_s, min(0.25, ceiling_s), 64, max_batch))
    for at_s, frames, rate in asked:
        house.say(at_s, frames, max(1, frames // 3), tokens_per_s=rate)
    house.run()
    assert [frames_of(s) for s in house.speeches] == [frames for _, frames, _ in sorted(asked, key=lambda u: u[0])]
    assert all(s.reason is FinishReason.COMPLETED for s in house.speeches)
    assert all(sum(length for _, length in s.sound) == pytest.approx(frames_of(s) * FRAME_S) for s in house.speeches)
    assert house.loop.free_page_count == house.runner.page_count


@settings(max_examples=20, deadline=None)
@given(st.lists(st.floats(0, 20), min_size=2, max_size=24), st.sampled_from([None, 8]))
def test_while_the_machine_can_keep_up_nobody_runs_dry(starts: list[float], max_batch: int | None) -> None:
    """Twelve rows a step cost 16 ms of the 80 they sound for, so even all at once are far from the machine's end."""
    house = House(Machine.read(report()), policy=Policy(max_batch=max_batch))
    for at_s in starts:
        house.say(at_s, 100, 30)
    house.run()
    for speech in house.speeches:
        assert speech.frames[0][0] - speech.asked_s < 0.25
        assert listen(speech.sound, 0.16)[0].underruns == 0


def test_a_newcomer_is_heard_soon_while_many_speak() -> None:
    """Those that are ahead step aside: the first frame comes in about the time of one small step, not of a full one."""

    def first_frame_s(policy: Policy) -> float:
        house = House(Machine.read(report(row_s=0.004)), policy=policy)
        for _ in range(15):
            house.say(0.0, 250, 80)
        house.say(4.0, 20, 6)
        house.run()
        return house.speeches[-1].frames[0][0] - 4.0

    polite, rude = first_frame_s(Policy()), first_frame_s(Policy(1000.0, 1000.0))
    assert polite < 0.1
    assert rude > polite


def test_beyond_the_machine_the_lack_is_shared() -> None:
    """Sixty-four streams on a machine for about fifty: nobody is left behind the others."""
    house = House(Machine.read(report(row_s=0.0016, base_s=0.0)))
    for _ in range(64):
        house.say(0.0, 125, 40)
    house.run()
    ends = sorted(speech.frames[-1][0] for speech in house.speeches)
    assert ends[-1] > 125 * FRAME_S
    assert ends[-1] - ends[0] < 0.05 * ends[-1]


def test_a_burst_beyond_the_slots_is_refused_at_once_and_the_rest_is_served() -> None:
    house = House(Machine.read(report()), slot_count=8)
    for _ in range(20):
        house.say(0.0, 30, 10)
    house.run()
    assert house.refused_count == 12
    assert sum(frames_of(s) == 30 for s in house.speeches) == 8


def test_a_pool_too_small_for_all_still_speaks_and_gives_everything_back() -> None:
    house = House(Machine.read(report()), page_count=6, prefix_pages=2)
    for start in range(12):
        house.say(start / 4, 40, 12, voice=start)
    house.run()
    said = [s for s in house.speeches if s.reason is FinishReason.COMPLETED]
    assert len(said) >= 6
    assert all(frames_of(s) == 40 for s in said)
    assert house.loop.free_page_count == 6


def test_waiting_counts_from_the_first_text_not_from_the_start() -> None:
    """A caller whose text is late has not been kept waiting by us."""

    class Waits(type(NOBODY)):  # type: ignore[misc]
        def waited(self, age_s: float) -> None:
            waits.append(age_s)

    waits: list[float] = []
    house = House(Machine.read(report()), observer=Waits())
    house.say(0.0, 10, 3, text_after_s=7.0)
    house.say(0.0, 10, 3)
    house.run()
    assert len(waits) == 2
    assert max(waits) < 0.1


def test_the_same_seed_is_the_same_history() -> None:
    def history() -> list[list[tuple[float, int]]]:
        house = House(Machine.read(report()), seed=3)
        for i in range(30):
            house.say(i * 0.1, 60, 20, voice=i)
        house.run()
        return [s.frames for s in house.speeches]

    assert history() == history()


@pytest.mark.parametrize(("size", "share", "seconds"), [(1, 0.5, 1.0), (3, 0.5, 3.0), (6, 0.5, 6.0), (1, 0.725, 1.5)])
def test_times_are_drawn_between_what_was_measured(size: int, share: float, seconds: float) -> None:
    rows = [{"rows": n, "min": 0.0, "p50": 1.0 * n, "p95": 2.0 * n, "p99": 3.0 * n, "max": 4.0 * n} for n in (1, 2, 4)]
    assert Times(rows).draw(size, share) == pytest.approx(seconds)


def test_the_bench_says_how_many_fit(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "steps.json"
    path.write_text(json.dumps(report(base_s=0.0, row_s=0.01)))
    few = ["--bursts", "1,8", "--rates", "1", "--sessions", "2", "--seconds", "5", "--seeds", "2"]
    assert simulate.main([str(path), *few, "--capacity", "--json"]) == 0
    figures = json.loads(capsys.readouterr().out)["figures"]
    value: Callable[..., Any] = lambda name, **where: next(  # noqa: E731
        f for f in figures if f["name"] == name and where.items() <= f.items()
    )
    assert 5 <= value("capacity_sessions")["value"] <= 8  # a row costs 10 ms of the 80 that it sounds for
    assert value("underruns", load="burst", size=1.0)["value"] == 0
    assert value("first_sound_s", load="burst", size=8.0)["p50"] > value("first_sound_s", load="burst", size=1.0)["p50"]
