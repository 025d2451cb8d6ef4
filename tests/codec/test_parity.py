"""Ours against stored outputs of the reference (qwen-tts 0.1.1); `tools/reference/codec.py` remakes them.

Float32 is held to 1e-4, float64 to 1e-9; encoder codes are equal integers.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from cli.checkpoint.random import write_random
from services.codec.model.config import CodecConfig
from services.codec.model.decoder import FusedSnake
from services.codec.model.encoder import load_encoder
from services.codec.model.speaker_encoder import load_speaker_encoder
from services.codec.model.weights import load_decoder

STORE = Path(__file__).parents[1] / "reference" / "codec"
TOLERANCE = {"float32": 1e-4, "float64": 1e-9}
CPU = torch.device("cpu")


@dataclass(frozen=True)
class Stored:
    arrays: dict[str, npt.NDArray[Any]]
    provenance: dict[str, Any]
    config: CodecConfig

    def waves(self, kind: str) -> list[tuple[torch.Tensor, npt.NDArray[Any]]]:
        audio = torch.from_numpy(stored_audio().astype(np.float32) / 32768)
        names = [name for name in self.arrays if name.startswith(kind)]
        return [(audio[: int(name.removeprefix(kind))], self.arrays[name]) for name in names]


@cache
def stored_audio() -> npt.NDArray[np.int16]:
    audio: npt.NDArray[np.int16] = np.load(STORE / "tiny.npz")["audio"]
    return audio


@pytest.fixture(scope="module", params=["tiny", "real"])
def stored(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stored]:
    """The stored answers, and the very checkpoint they were given for."""
    name = request.param
    provenance = json.loads((STORE / f"{name}.json").read_text())
    directory = write_random(tmp_path_factory.mktemp(name), **provenance["checkpoint"]["write_random"])
    tensors = (directory / "speech_tokenizer" / "model.safetensors").read_bytes()
    same = sha256(tensors).hexdigest() == provenance["checkpoint"]["speech_tokenizer_sha256"]
    assert same, "random checkpoints have changed: remake the stored references (tools/reference/codec.py)"
    arrays = dict(np.load(STORE / f"{name}.npz"))
    yield Stored(arrays, provenance, CodecConfig.read(directory))
    shutil.rmtree(directory)


@pytest.fixture(params=["torch", "native"])
def activation(request: pytest.FixtureRequest) -> FusedSnake | None:
    """What computes the snake in float32; None is torch."""
    return request.getfixturevalue("native_snake") if request.param == "native" else None


@pytest.mark.timeout(240)
def test_undivided_decode_in_float64_equals_the_reference(stored: Stored) -> None:
    _is_the_reference(stored, "float64", None)


@pytest.mark.timeout(240)
def test_undivided_decode_equals_the_reference(stored: Stored, activation: FusedSnake | None) -> None:
    _is_the_reference(stored, "float32", activation)


def _is_the_reference(stored: Stored, dtype: str, activation: FusedSnake | None) -> None:
    decoder = load_decoder(stored.config, device=CPU, dtype=getattr(torch, dtype), fused=activation)
    codes = torch.from_numpy(stored.arrays["codes"].astype(np.int64))[None]
    state = decoder.new_state(1, codes.shape[1])
    samples = decoder(codes, state, torch.tensor([0]), torch.tensor([True]))[
        0, :: stored.provenance["every_nth_sample"]
    ]
    expected = stored.arrays[f"samples_{dtype}"]
    assert np.abs(expected).max() > 0.1
    np.testing.assert_allclose(samples.numpy(), expected, rtol=0, atol=TOLERANCE[dtype])


@pytest.mark.timeout(240)
def test_streamed_decode_stays_within_twice_the_references_own_rounding(
    stored: Stored, activation: FusedSnake | None
) -> None:
    """Packets of 1, 2, then 4 frames in float32, against the reference's float64."""
    decoder = load_decoder(stored.config, device=CPU, dtype=torch.float32, fused=activation)
    codes = torch.from_numpy(stored.arrays["codes"].astype(np.int64))[None]
    state, sound, at = decoder.new_state(1, 4), [], 0
    for frames in (1, 2, *[4] * 100):
        if at < codes.shape[1]:
            sound.append(decoder(codes[:, at : at + frames], state, torch.tensor([0]), torch.tensor([at == 0]))[0])
            at += frames
    samples = torch.cat(sound)[:: stored.provenance["every_nth_sample"]]
    gap = np.abs(samples.numpy() - stored.arrays["samples_float64"]).max()
    assert gap < 2 * stored.provenance["float32_against_float64"]


@pytest.mark.timeout(60)
def test_encoder_codes_equal_the_reference(stored: Stored) -> None:
    encoder = load_encoder(stored.config)
    assert encoder is not None
    for wave, expected in stored.waves("encoded_"):
        np.testing.assert_array_equal(encoder(wave).numpy(), expected)


@pytest.mark.timeout(60)
def test_the_speaker_vector_equals_the_reference(stored: Stored) -> None:
    encoder = load_speaker_encoder(stored.config)
    assert encoder is not None
    for wave, expected in stored.waves("speaker_"):
        np.testing.assert_allclose(encoder(wave).numpy(), expected, rtol=0, atol=1e-4)
