"""The voice that the repository carries, through the engines that serve it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from cli.checkpoint.inspect import inspect
from tools.mini_voice import speak
from tools.mini_voice.codebooks import Codebooks, nearest
from tools.mini_voice.dimensions import CODEBOOK_SIZE, ENVELOPE_WIDTH, USED_CODEBOOKS
from tools.mini_voice.take_up import take_up
from tools.mini_voice.voices import VOICES

MINI = Path(__file__).parents[2] / "voices" / "mini"
TEXTS = ("Hello there.", "The yellow dog is sleeping behind the house.")


def test_the_voice_is_whole_and_fits_the_repository() -> None:
    report = inspect(MINI)
    assert report.whole
    assert list(report.voices) == [voice.name for voice in VOICES]
    assert sum(path.stat().st_size for path in MINI.rglob("*")) <= 40e6
    assert "## Measured" in (MINI / "README.md").read_text(encoding="utf-8")


def test_whoever_trains_it_further_finds_its_codes_again(tmp_path: Path) -> None:
    take_up(MINI, tmp_path)
    books = Codebooks.load(tmp_path / "codebooks.npz")
    used = books.entries[[0, *range(2, USED_CODEBOOKS)], :, :ENVELOPE_WIDTH]
    told = used[0].square().sum(1).mean()
    assert [bool(book.square().sum(1).mean() < told / 2) for book in used[1:]] == [True] * (USED_CODEBOOKS - 2)
    across = books.basis.T @ books.basis - torch.eye(ENVELOPE_WIDTH)
    assert float(across.abs().max()) < 1e-3
    assert np.array_equal(nearest(used[0], used[0]).numpy(), np.arange(CODEBOOK_SIZE))


@pytest.mark.parametrize("voice", [voice.name for voice in VOICES])
@pytest.mark.parametrize("layout", ["streaming", "whole"])
def test_it_speaks_about_as_long_as_the_text_and_stops(voice: str, layout: str) -> None:
    said = speak.speak(MINI, TEXTS, voice, layout=layout)
    assert all(one.ended for one in said)
    short, long = (len(one.codes) for one in said)
    assert 8 <= short <= 25  # about a second, two frames of silence before it
    assert 28 <= long <= 55
    for samples in speak.decode(MINI, [one.codes for one in said]):
        assert 0.01 < float(np.sqrt(np.square(samples).mean())) < 0.3
        assert float(np.abs(samples[: 2 * 1920]).max()) < 0.1  # it waits for two tokens before it speaks
