"""`voicemesh tune`: a table, a choice that serving then takes, and a machine without a compiler."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cli.checkpoint.random import write_random
from cli.main import main
from common import native
from services.tts_lm.kernels import read_measured
from services.tts_lm.model.config import load_config


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_random(tmp_path_factory.mktemp("tiny"), "tiny", "custom_voice", 0)


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


@pytest.mark.timeout(120)
def test_the_fastest_of_what_is_here_is_kept_for_serving(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tune", "--model", str(model), "--dtypes", "float32,int8", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert sorted(told["libraries"]) == ([] if native.compiler() is None else ["codec", "tts_lm"])
    for dtype, rows in told["measured"].items():
        assert [row["median_ms"] for row in rows] == sorted(row["median_ms"] for row in rows)
        assert {row["kernels"] for row in rows} == ({"native", "torch"} if told["libraries"] else {"torch"})
        kept = read_measured(load_config(model), dtype)
        assert kept is not None
        assert (kept.kernels, kept.thread_count) == (rows[0]["kernels"], rows[0]["thread_count"])


def test_without_a_compiler_torch_is_measured_and_that_is_said(
    model: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(native, "compiler", lambda: None)
    assert main(["tune", "--model", str(model), "--dtypes", "float32"]) == 0
    told = capsys.readouterr().out
    assert "there is no C++ compiler here" in told
    assert "-> torch" in told
    assert "native" not in told


def test_a_dtype_that_there_is_not_is_refused(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tune", "--model", str(model), "--dtypes", "int4"]) == 2
    assert "no dtype 'int4'" in capsys.readouterr().err
