import json
from itertools import islice

import pytest

from bench import mesh
from bench.loads import LONGEST_S, SHORTEST_S, arrivals, lines
from bench.running import Between


@pytest.mark.timeout(120)
def test_every_load_is_told_with_its_seeds_and_its_stages(capsys: pytest.CaptureFixture[str]) -> None:
    small = "--bursts 2 --rates 5 --seconds 1 --seeds 2 --rounds 1 --letters 5 --stops 2 --warm-up 1 --max-frames 9"
    assert mesh.main([*small.split(), "--json"]) == 0
    figures = json.loads(capsys.readouterr().out)["figures"]
    burst = {f["name"]: f for f in figures if f.get("load") == "burst"}
    assert burst["answers"]["value"] == burst["first_byte_s"]["n"] == 4
    assert 0 < burst["first_byte_s"]["p50"] <= burst["first_playable_s"]["p50"] <= burst["first_audible_s"]["p50"]
    assert burst["first_byte_p95_of_a_seed_s"]["n"] == 2
    assert burst["gateway_memory_mib"]["value"] > 10
    assert {"hops_s", "stop_s"} <= {f["name"] for f in figures}
    assert any(f.get("load") == "poisson" and f["name"] == "rtf" for f in figures)


@pytest.mark.timeout(120)
def test_real_time_streams_go_through_any_number_of_gateways(capsys: pytest.CaptureFixture[str]) -> None:
    loads = "--bursts= --rates= --streams 6 --gateways 2 --seconds 1 --seeds 1 --letters 5 --stops 2 --warm-up 2"
    assert mesh.main([*loads.split(), "--json"]) == 0
    figures = {f["name"]: f for f in json.loads(capsys.readouterr().out)["figures"] if f.get("load") == "streams"}
    assert figures["answers"]["value"] == figures["ended_length"]["value"] == 6
    assert figures["audio_s"]["value"] >= 6 * 0.96, "three packets of four frames each"
    assert figures["rtf"]["min"] > 0.2, "three packets of 0.32 s, 0.4 s ahead of their listener at most"
    assert figures["gateway_cpu_s_per_audio_s"]["value"] > 0
    assert figures["gateway_2_cpu_s_per_audio_s"]["value"] > 0


@pytest.mark.timeout(150)
def test_both_speech_stages_are_measured_in_one_process(capsys: pytest.CaptureFixture[str]) -> None:
    loads = "--like tiny --speech-processes 1 --bursts 2 --rates= --rounds 1 --seeds 1 --warm-up 1 --max-frames 5"
    assert mesh.main([*loads.split(), "--slots", "2", "--json"]) == 0
    figures = {f["name"]: f for f in json.loads(capsys.readouterr().out)["figures"] if f.get("load") == "burst"}
    assert figures["answers"]["value"] == figures["ended_length"]["value"] == 2
    assert figures["tts_lm_memory_mib"] == figures["codec_memory_mib"] | {"name": "tts_lm_memory_mib"}


def test_a_seed_says_the_same_again_and_no_answer_is_longer_than_it_may_be() -> None:
    for natural in (True, False):
        first, again = (list(islice(lines(4, ends_by_itself=natural), 200)) for _ in range(2))
        assert first == again
        assert all(line.max_frames <= 60 for line in islice(lines(4, ends_by_itself=False, longest_frames=60), 50))
    frames = [line.max_frames for line in first]
    assert SHORTEST_S * 12.5 - 1 <= min(frames) < 50 < max(frames) <= LONGEST_S * 12.5
    assert all(len(line.text.split()) > line.max_frames for line in first)
    assert arrivals(1, 20.0, 10.0) == arrivals(1, 20.0, 10.0)
    assert 120 < len(arrivals(1, 20.0, 10.0)) < 280


def test_counters_and_quantiles_are_of_the_time_between() -> None:
    def page(counts: list[float], hits: float) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
        edges = ("0.01", "0.02", "+Inf")
        buckets = {("s_bucket", frozenset({("le", e)})): c for e, c in zip(edges, counts, strict=True)}
        return {**buckets, ("hits_total", frozenset({("hit", "true")})): hits}

    between = Between(page([5, 5, 5], 3), page([15, 25, 25], 10))
    assert between.grown("hits_total", hit="true") == 7
    assert between.grown("hits_total", hit="false") == 0
    assert between.quantile("s", 0.5) == pytest.approx(0.01)
    assert between.quantile("s", 0.75) == pytest.approx(0.015)
    assert between.quantile("nothing", 0.5) is None
