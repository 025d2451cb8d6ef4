"""`voicemesh voices add`, then the voice by its name: through the mesh it sounds as the recording itself does."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile

from cli.checkpoint.random import write_random
from tests.cli.commands import voicemesh
from tests.mesh.processes import Mesh, running_mesh

pytestmark = pytest.mark.timeout(120)
TEXT = "A voice that was kept."


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    time_s = np.arange(24_000) / 24_000
    path = tmp_path_factory.mktemp("recording") / "anna.flac"
    soundfile.write(path, 0.4 * np.sin(2 * np.pi * (200 + 150 * time_s) * time_s), 24_000)
    return path


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tmp_path_factory.mktemp("voices"))


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory, store: str) -> Iterator[Mesh]:
    model = write_random(tmp_path_factory.mktemp("base"), like="tiny", type="base", seed=5)
    stores = {f"VOICEMESH_{service}_VOICE_STORE": store for service in ("TTS_LM", "GATEWAY")}
    with running_mesh("--model", str(model), environment=stores) as it:
        yield it


async def kept(mesh: Mesh, store: str, name: str, *flags: str) -> dict[str, str]:
    where = ["--store", store, "--codec", mesh.address("codec")]
    done = await voicemesh("voices", "add", name, *flags, *where, "--json")
    assert done.code == 0, done.errors
    return json.loads(done.out)


@pytest.mark.parametrize("text", [["--ref-text", "one two three"], []], ids=["with codes", "vector alone"])
async def test_an_added_voice_sounds_as_its_recording_does(mesh, store, recording, tmp_path, text):
    added = await kept(mesh, store, "Anna", "--ref-audio", str(recording), *text)
    heard = []
    for number, voice in enumerate((["--voice", "ANNA"], ["--ref-audio", str(recording), *text])):
        out = tmp_path / f"{number}.wav"
        where = ["--gateway", mesh.address("gateway"), "--codec", mesh.address("codec")]
        done = await voicemesh("say", TEXT, *voice, "--greedy", "--max-frames", "20", "--out", str(out), *where)
        assert done.code == 0, done.errors
        heard.append(soundfile.read(out, dtype="int16")[0])
    assert len(heard[0]) > 0
    # The vector crosses the wire as float32 and the packets are cut differently: the last bit may round otherwise.
    np.testing.assert_allclose(heard[0].astype(int), heard[1].astype(int), atol=2)
    assert added["frames"] == (13 if text else 0)


async def test_tts_lm_speaks_an_added_voice_by_itself(mesh, store, recording):
    told = ["--ref-audio", str(recording), "--ref-text", "one two three"]
    await kept(mesh, store, "Clara", *told)
    where = ["--tts-lm", mesh.address("tts_lm"), "--codec", mesh.address("codec")]
    answers = [
        await voicemesh("codes", TEXT, *voice, "--greedy", "--max-frames", "12", *where)
        for voice in (["--voice", "clara"], told)
    ]
    by_name, by_recording = ([json.loads(line) for line in done.out.splitlines()[:-1]] for done in answers)
    assert len(by_name) == 12, answers[0].errors
    assert by_name == by_recording


async def test_an_added_voice_is_listed_by_a_service_that_runs_already(mesh, store, recording):
    await kept(mesh, store, "Berta", "--ref-audio", str(recording))
    done = await voicemesh("voices", "--json", "--tts-lm", mesh.address("tts_lm"))
    assert "Berta" in [voice["name"] for voice in json.loads(done.out)["voices"]]


async def test_a_text_file_is_no_voice(store, tmp_path):
    rubbish = tmp_path / "rubbish.wav"
    rubbish.write_text("this is no sound")
    done = await voicemesh("voices", "add", "X", "--ref-audio", str(rubbish), "--store", store)
    assert done.code == 1
    assert "cannot be read" in done.errors
