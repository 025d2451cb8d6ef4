import json

import pytest

from bench import hop, telemetry


def test_every_server_is_measured_at_every_load(capsys: pytest.CaptureFixture[str]) -> None:
    assert (
        hop.main(
            ["--streams", "1,3", "--messages", "12", "--seconds", "0.2", "--rounds", "1", "--warm-up", "3", "--json"]
        )
        == 0
    )
    document = json.loads(capsys.readouterr().out)
    figures = [figure for figure in document["figures"] if figure["name"] == "round_trip_s"]
    seen = {(figure["server"], figure["streams"], figure["pace"]) for figure in figures}
    servers = ("bare", "serving", "codec", "codec, silent", "mesh")
    assert seen == {(s, n, pace) for s in servers for n in (1, 3) for pace in ("back to back", "paced")}
    assert all(0 < figure["min"] <= figure["p50"] <= figure["p99"] for figure in figures)
    assert {figure["n"] for figure in figures if figure["pace"] == "back to back"} == {12}


def test_telling_nobody_is_measured_beside_telling(capsys: pytest.CaptureFixture[str]) -> None:
    assert telemetry.main(["--rounds", "2", "--json"]) == 0
    figures = {(f["name"], f["telemetry"]): f["p50"] for f in json.loads(capsys.readouterr().out)["figures"]}
    assert figures["step_s", "off"] < figures["step_s", "on"]
    assert figures["call_s", "off"] < figures["call_s", "on"]
