"""`say` through a real gateway over fake stages: files, the loudspeaker, reports."""

import json
import os

import numpy as np
import pytest
import soundfile

from tests.cli.commands import voicemesh
from tests.edges import gateway
from tests.fakes import speak, tone


@pytest.fixture
async def address():
    async with gateway() as server:
        yield server.address


async def test_what_is_said_becomes_a_file_and_json_says_what_it_is(address, tmp_path):
    out = tmp_path / "a.wav"
    done = await voicemesh("say", "Hello.", "--seed", "5", "--out", str(out), "--json", "--gateway", address)
    assert done.code == 0, done.errors
    facts = json.loads(done.out)
    samples, rate = soundfile.read(out, dtype="int16")
    expected, _ = tone(speak("Hello.", seed=5))
    assert rate == 24000
    assert np.array_equal(samples, expected)
    assert facts.pop("first_packet_ms") > 0
    assert facts.pop("rtf") > 0
    frames = len(expected) // 1920
    assert facts == {
        "seed": 5, "voice": "tone", "frames": frames, "audio_s": round(frames * 0.08, 3), "finish_reason": "COMPLETED",
    }  # fmt: skip


async def test_a_person_reads_a_line(address, tmp_path):
    out = tmp_path / "a.wav"
    done = await voicemesh("say", "Hello.", "--max-frames", "3", "--out", str(out), "--gateway", address)
    assert done.code == 0
    assert done.out.decode().startswith("0.24 s of speech, seed ")
    assert done.out.decode().endswith(f", cut short (LENGTH): {out}\n")


async def test_text_on_standard_input_is_said(address, tmp_path):
    out = tmp_path / "a.wav"
    flags = ["--greedy", "--voice", "bell", "--out", str(out), "--gateway", address]
    done = await voicemesh("say", "-", *flags, stdin="Grüße".encode())
    assert done.code == 0, done.errors
    assert np.array_equal(soundfile.read(out, dtype="int16")[0], tone(speak("Grüße", voice="bell"))[0])


async def test_a_fault_is_told_in_both_forms(address, tmp_path):
    flags = ["--voice", "nobody", "--out", str(tmp_path / "a.wav"), "--gateway", address]
    plain = await voicemesh("say", "x", *flags)
    assert (plain.code, plain.out) == (1, b"")
    assert "nobody" in plain.errors
    as_json = await voicemesh("say", "x", "--json", *flags)
    assert as_json.code == 1
    facts = json.loads(as_json.out)
    assert facts["finish_reason"] == "FAILED"
    assert "nobody" in facts["error"]


async def test_without_a_sound_device_nothing_is_asked_for(address, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))  # no player here
    done = await voicemesh("say", "x", "--gateway", address)
    assert done.code == 1
    assert "there is no sound device here: give --out FILE.wav" in done.errors


@pytest.fixture
def player(tmp_path, monkeypatch):
    """A sound server and a player of it that keeps what it is given, and its arguments."""
    (tmp_path / "run/pulse").mkdir(parents=True)
    (tmp_path / "run/pulse/native").write_text("")
    script = tmp_path / "bin/paplay"
    script.parent.mkdir()
    script.write_text(f'#!/bin/sh\necho "$@" > {tmp_path}/arguments\ncat > {tmp_path}/heard\nexit ${{FAKE_EXIT:-0}}\n')
    script.chmod(0o755)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "run"))
    monkeypatch.setenv("PATH", f"{script.parent}{os.pathsep}{os.environ['PATH']}")
    return tmp_path


async def test_with_a_sound_device_speech_is_heard(address, player):
    done = await voicemesh("say", "Hello.", "--seed", "5", "--gateway", address)
    assert done.code == 0, done.errors
    assert np.array_equal(np.frombuffer((player / "heard").read_bytes(), "<i2"), tone(speak("Hello.", seed=5))[0])
    assert (player / "arguments").read_text().split() == ["--raw", "--rate=24000", "--channels=1", "--format=s16le"]


async def test_a_player_that_fails_is_a_sentence(address, player, monkeypatch):
    monkeypatch.setenv("FAKE_EXIT", "3")
    done = await voicemesh("say", "Hello.", "--gateway", address)
    assert done.code == 1
    assert "paplay could not play: exit code 3" in done.errors
