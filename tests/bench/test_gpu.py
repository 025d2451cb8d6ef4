"""The GPU suite where there is no GPU: the whole command at tiny dimensions, with as little installed as may be."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from bench.on_gpu.budget import Budget
from bench.on_gpu.profile import Kernel, use_of
from bench.on_gpu.targets import TARGETS, verdicts
from bench.report import ROOT
from bench.roofline import talker_frame, talker_step
from cli.checkpoint import weights
from cli.checkpoint.random import write_random

BARE = """
import sys
ABSENT = {"pydantic", "pydantic_settings", "opentelemetry", "grpc", "google", "voicemesh", "prometheus_client",
          "aiohttp", "uvloop", "yaml", "soxr", "av", "soundfile", "transformers"}
class Bare:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ABSENT:
            raise ModuleNotFoundError(f"a bare machine has no {name}", name=name)
sys.meta_path.insert(0, Bare())
from bench import gpu
sys.exit(gpu.main(sys.argv[1:]))
"""


@pytest.mark.timeout(600)
def test_the_whole_suite_runs_on_a_bare_machine(tmp_path: Path) -> None:
    command = [sys.executable, "-c", BARE, "--device", "cpu", "--tiny", "--budget-s", "540", "--out", str(tmp_path)]

    done = subprocess.run([*command, "--json"], cwd=ROOT, capture_output=True, text=True, timeout=590, check=False)

    (path,) = tmp_path.glob("gpu-*.json")
    figures = json.loads(path.read_text())["figures"]
    failed = {figure["section"]: figure["why"] for figure in figures if figure["name"] == "failed"}
    assert not failed, (failed, done.stderr)
    assert done.returncode == 0
    assert json.loads(done.stdout)["figures"] == figures
    sections = {figure["section"] for figure in figures}
    assert {"machine", "parity", "codec", "bursts", "stop", "open-loop", "streams-1.7B", "alone-1.7B"} <= sections
    assert all(f["value"] == 1.0 for f in figures if f["name"] in ("greedy_frames_equal", "codes_equal"))
    assert all(f["value"] <= f["may_be"] for f in figures if f["name"] == "sound_gap")
    assert sum(f["value"] for f in figures if f["name"] == "answers_lost") == 0


def test_it_is_also_a_module_of_the_tree(tmp_path: Path) -> None:
    """Also: only what was asked for runs, and a section that fails is told and makes the exit code 1."""
    arguments = ["--device", "cpu", "--tiny", "--only", "machine", "--budget-s", "0", "--out", str(tmp_path)]
    command = [sys.executable, "-m", "bench.gpu", *arguments, "--json"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=80, check=False)
    assert done.returncode == 1
    told = {(f["name"], f["section"]) for f in json.loads(done.stdout)["figures"]}
    assert told == {("failed", "machine"), ("section_s", "machine")}


def test_a_budget_is_shared_and_shrinks_what_is_counted() -> None:
    now = [0.0]
    whole = Budget(10.0, lambda: now[0])
    part = whole.share(1, of=4)
    assert (part.seconds, part.count(100, each_s=0.1), part.count(5, each_s=0.1)) == (2.5, 25, 5)
    now[0] = 3.0
    assert part.spent
    assert part.count(100, each_s=0.1, least=2) == 2
    assert whole.share(1, of=2).seconds == 3.5


def test_gaps_and_busy_time_count_what_overlaps_once() -> None:
    kernels = [Kernel("b", 2.0, 3.0), Kernel("a", 0.0, 1.0), Kernel("c", 2.5, 4.0), Kernel("d", 5.0, 5.5)]
    use = use_of(kernels)
    assert (use.window_s, use.busy_s, use.gaps_s) == (5.5, 3.5, [1.0, 1.0])


def test_a_target_is_met_or_missed_where_it_was_measured() -> None:
    streams = {"name": "streams_without_underrun", "streams": 160, "size": "1.7B", "value": 159}
    burst = {"name": "first_packet_s", "load": "burst", "at_once": 3, "size": "0.6B", "p95": 0.03}
    other = {"name": "first_packet_s", "load": "burst", "at_once": 3, "size": "1.7B", "p95": 9.0}
    told = verdicts([streams, burst, other])
    assert [(row["of"], row["met"]) for row in told] == [
        ("first_packet_s p95", True),
        ("streams_without_underrun value", False),
    ]
    assert len({(t.name, t.measure, *sorted(t.where.items())) for t in TARGETS}) == len(TARGETS)


def test_the_floor_of_a_step_is_counted_from_dimensions_as_from_weights(tmp_path: Path) -> None:
    import torch

    from services.tts_lm.model.config import load_config
    from services.tts_lm.model.weights import load_weights

    directory = write_random(tmp_path, values=weights.quick_values)
    config = load_config(directory)
    held = load_weights(directory, config, torch.float32, torch.device("cpu"))
    assert talker_step(config, 1, 50, 4) == talker_frame(held, config, 50)
    one, many = talker_step(config, 1, 0, 4), talker_step(config, 8, 0, 4)
    assert (many.byte_count, many.operation_count) == (one.byte_count, 8 * one.operation_count)


def test_quick_values_are_scaled_as_the_others() -> None:
    name, shape = "talker.model.layers.0.mlp.gate_proj.weight", (3072, 1024)
    exact, quick = (list(values(0, 7)(name, shape)) for values in (weights.values, weights.quick_values))
    assert sum(chunk.size for chunk in quick) == 3072 * 1024
    assert abs(quick[0].std() / exact[0].std() - 1) < 0.01
