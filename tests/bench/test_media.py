import json

import pytest

from bench import media


def test_our_receive_path_is_measured_beside_aiortc_s(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--seconds", "1", "--networks", "clean", "--peers", "2", "--speaking", "1"]
    assert media.main([*arguments, "--holds", "1", "--json"]) == 0
    figures = json.loads(capsys.readouterr().out)["figures"]
    delays = {figure["path"]: figure for figure in figures if figure.get("network") == "clean" and "p95" in figure}
    assert 0 < delays["ours"]["p50"] < delays["aiortc"]["p50"]
    values = {figure["name"]: figure["value"] for figure in figures if figure.get("peers") == 2 and "value" in figure}
    assert values["slots"] > 50
    assert values["send_lateness_p50_below_s"] <= values["send_lateness_p99_below_s"]
    assert {"hold_to_last_audible_packet_s", "opus_encode_s", "opus_decode_s", "echo_per_block_s"} <= {
        figure["name"] for figure in figures
    }


def test_a_quantile_is_the_edge_below_which_the_share_lies() -> None:
    counts = [90, 5, 4, 0, 0, 0, 0, 0, 0, 0, 0, 1]
    assert media.quantile(counts, 0.5) == 0.0005
    assert media.quantile(counts, 0.99) == 0.002
    assert media.quantile(counts, 1.0) == float("inf")
