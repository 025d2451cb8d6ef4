"""The command itself: quick, with one exit code per outcome, and `checkpoint` and `doctor` from the outside."""

import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from cli import doctor
from cli.commands.doctor import report
from cli.main import main
from tests.cli.commands import ROOT, voicemesh

HEAVY = ("torch", "grpc", "numpy", "transformers", "tokenizers", "pydantic", "opentelemetry")


def cpu_s():
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def test_help_is_quick_and_imports_nothing_heavy():
    program = f"import cli.main, sys; cli.main._parser(); print([m for m in {HEAVY!r} if m in sys.modules])"
    took_s = []
    for _ in range(3):
        begin = cpu_s()  # of the command alone: whatever else this machine is doing is not its fault
        assert subprocess.check_output([sys.executable, "-c", program], cwd=ROOT, text=True).strip() == "[]"
        took_s.append(cpu_s() - begin)
    assert min(took_s) < 0.3


@pytest.mark.parametrize("arguments", [["--help"], ["serve", "--help"], ["checkpoint", "random", "--help"]])
async def test_help_is_given(arguments):
    done = await voicemesh(*arguments)
    assert (done.code, done.errors) == (0, "")
    assert b"usage: voicemesh" in done.out


async def test_version_is_a_line():
    done = await voicemesh("--version")
    assert done.code == 0
    assert done.out.startswith(b"voicemesh ")


def test_a_random_checkpoint_is_written_and_is_whole(tmp_path, capsys):
    directory = str(tmp_path / "tiny")
    assert main(["checkpoint", "random", "--like", "tiny", "--type", "base", "--seed", "3", "--json", directory]) == 0
    written = json.loads(capsys.readouterr().out)
    size = sum(path.stat().st_size for path in Path(directory).rglob("*") if path.is_file())
    assert (written["bytes"], written["seed"], written["type"]) == (size, 3, "base")
    assert main(["checkpoint", "inspect", directory, "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["whole"] is True
    assert report["supports_clone"] is True
    assert main(["checkpoint", "inspect", directory]) == 0
    assert "It is whole." in capsys.readouterr().out


def test_a_directory_that_is_not_empty_is_left_alone(tmp_path, capsys):
    (tmp_path / "precious").write_text("mine")
    assert main(["checkpoint", "random", str(tmp_path)]) == 1
    assert "is not empty" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["precious"]
    assert main(["checkpoint", "random", "--force", str(tmp_path)]) == 0
    assert (tmp_path / "precious").read_text() == "mine"
    assert main(["checkpoint", "random", str(tmp_path / "precious")]) == 1
    assert "is a file" in capsys.readouterr().err


def test_a_damaged_checkpoint_fails_with_a_sentence(tmp_path, capsys):
    assert main(["checkpoint", "random", str(tmp_path)]) == 0
    weights = tmp_path / "model.safetensors"
    os.truncate(weights, weights.stat().st_size - 1)
    assert main(["checkpoint", "inspect", str(tmp_path)]) == 1
    assert capsys.readouterr().err.startswith(f"voicemesh: {weights} is cut short")


def test_doctor_speaks_in_sentences_and_in_json(capsys):
    code = main(["doctor", "--json"])
    report = json.loads(capsys.readouterr().out)
    assert report["healthy"] is (code == 0)
    assert {"python", "hardware", "packages", "torch", "ports", "sound", "0.6B.cpu"} <= {
        finding["name"] for finding in report["findings"]
    }
    assert all(finding["sentence"].endswith(".") for finding in report["findings"])
    assert main(["doctor"]) == code
    assert len(capsys.readouterr().out.splitlines()) == len(report["findings"])


def test_something_needed_that_is_missing_makes_doctor_fail(capsys):
    fine, lacking = doctor.Finding("a", "note", "Fine."), doctor.Finding("b", "missing", "Lacking.")
    assert report([fine], as_json=False) == 0
    assert report([fine, lacking], as_json=False) == 1
    assert "MISSING  Lacking." in capsys.readouterr().out
    assert report([lacking], as_json=True) == 1
    assert json.loads(capsys.readouterr().out)["healthy"] is False


def test_the_memory_needed_follows_the_models():
    small, large = doctor.needed_bytes("0.6B", 4), doctor.needed_bytes("1.7B", 4)
    # Weights alone: parameters of section 1 of the model document in float32, and the codec's decoder.
    assert 4 * (905_788_672 + 114_323_137) < small < 4 * 905_788_672 + 3e9
    assert large - small == pytest.approx(4 * (1_916_676_352 - 905_788_672))
    total, available = doctor.memory_bytes()
    assert 0 < available <= total


@pytest.mark.timeout(180)  # a process for each of them
async def test_bench_lists_and_hands_over():
    listed = await voicemesh("bench")
    assert b"compare" in listed.out
    for line in listed.out.decode().splitlines():
        name = line.split()[0]
        asked = await voicemesh("bench", name, "--help")
        assert (asked.code, asked.out[:6]) == (0, b"usage:"), name
    handed_over = await voicemesh("bench", "compare", "--help")
    assert (handed_over.code, handed_over.out[:30]) == (0, b"usage: voicemesh bench compare")
    failed = await voicemesh("bench", "compare", "absent.json", "absent.json")
    assert (failed.code, failed.errors) == (1, "voicemesh: absent.json does not exist\n")
    unknown = await voicemesh("bench", "nonsense")
    assert unknown.code == 2
    assert "choose one of" in unknown.errors
