"""A finished voice can be trained further: what `export` wrote comes back."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer

from tests.mini_voice.conftest import Untrained
from tests.mini_voice.test_training import PLAN
from tools.mini_voice import take_up, train_talker, vocabulary
from tools.mini_voice.clock import resume
from tools.mini_voice.codebooks import Codebooks
from tools.mini_voice.corpus import Corpus

CARD = "| steps | codec 800, talker 70 |\n"


@pytest.fixture
def voice(untrained: Untrained) -> Path:
    (untrained.directory / "README.md").write_text(CARD, encoding="utf-8")
    return untrained.directory


def test_both_trainings_begin_at_the_weights_and_steps_of_the_voice(
    voice: Path, untrained: Untrained, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    take_up.take_up(voice, tmp_path)
    codec, talker = (torch.load(tmp_path / f"{name}.pt", weights_only=True) for name in ("codec", "talker"))
    assert (codec["step"], talker["step"]) == (800, 70)
    for name, tensor in untrained.decoder.state_dict().items():
        assert torch.equal(codec["net"][name], tensor), name
    theirs = untrained.talker.state_dict()
    assert theirs.keys() - talker["net"].keys() == {"phone_reader.weight", "phone_reader.bias"}
    for name, tensor in talker["net"].items():
        assert torch.equal(tensor, theirs[name].to(torch.bfloat16).float()), name
    text = "The small grey cat."
    words = vocabulary.load(tmp_path / "vocabulary")
    assert vocabulary.encode(words, text)[0] == vocabulary.encode(tokenizer, text)[0]


def test_a_training_goes_on_behind_the_steps_of_the_voice(
    voice: Path, corpus: Corpus, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    take_up.take_up(voice, tmp_path)
    train_talker.train(tmp_path, corpus, tokenizer, replace(PLAN, steps=72, seconds=0.0))
    train_talker.train(tmp_path, corpus, tokenizer, replace(PLAN, steps=72))
    state = torch.load(tmp_path / "talker.pt", weights_only=True)
    assert (state["step"], state["origin"]) == (72, 70)
    take_up.take_up(voice, tmp_path)
    assert torch.load(tmp_path / "talker.pt", weights_only=True)["step"] == 72


def test_weights_of_another_network_are_refused(voice: Path, tmp_path: Path) -> None:
    take_up.take_up(voice, tmp_path)
    with pytest.raises(ValueError, match="another network"):
        resume(tmp_path / "codec.pt", train_talker.build(3), [], "cpu")


def test_the_codebooks_of_a_voice_come_back_with_their_analysis(
    voice: Path, untrained: Untrained, tmp_path: Path
) -> None:
    take_up.take_up(voice, tmp_path)
    found = Codebooks.load(tmp_path / "codebooks.npz")
    for field in fields(Codebooks):
        assert torch.equal(getattr(found, field.name), getattr(untrained.books, field.name)), field.name


def test_a_card_without_steps_is_refused() -> None:
    with pytest.raises(ValueError, match="how many steps"):
        take_up.steps("# mini")
