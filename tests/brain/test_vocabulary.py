"""The brain's mark for a tokenizer is the speech model's mark for the same one."""

from __future__ import annotations

from pathlib import Path

import pytest
from transformers import AutoTokenizer

from cli.checkpoint.random import write_random
from common.errors import InvalidRequest
from services.brain.prompt import Conversation, opening, with_turn
from services.brain.types import Message, Role, TurnRequest
from services.brain.vocabulary import Vocabulary, fingerprint_of
from services.tts_lm.model.tokenizer import load_tokenizer


def test_brain_and_talker_give_one_tokenizer_one_fingerprint(tmp_path: Path, models: Path) -> None:
    speech = write_random(tmp_path / "speech", like="tiny", type="custom_voice", seed=0)
    ours = fingerprint_of(AutoTokenizer.from_pretrained(speech).backend_tokenizer)
    assert ours == load_tokenizer(speech).fingerprint
    other = fingerprint_of(AutoTokenizer.from_pretrained(models / "text").backend_tokenizer)
    assert len(ours) == len(other) == 64
    assert ours != other


def test_special_tokens_do_not_count(models: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(models / "text")
    before = fingerprint_of(tokenizer.backend_tokenizer)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|new|>"]})
    assert fingerprint_of(tokenizer.backend_tokenizer) == before


def test_what_precedes_the_words_begins_every_prompt_that_follows(models: Path) -> None:
    vocabulary = Vocabulary(AutoTokenizer.from_pretrained(models / "text"))
    history = (Message(Role.USER, "hi"), Message(Role.ASSISTANT, "ho", interrupted=True))
    before = opening(TurnRequest("be kind", history))
    for text in ("hello", "x" * 99):
        assert vocabulary.render(with_turn(before, text, None)).startswith(vocabulary.render_before(before))
    assert vocabulary.render_before(before).endswith("<|im_start|>user\n")


def test_a_tokenizer_without_a_template_is_refused(models: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(models / "text")
    tokenizer.chat_template = None
    with pytest.raises(InvalidRequest, match="chat template"):
        Vocabulary(tokenizer)


def test_an_answer_goes_on_right_after_its_beginning(models: Path) -> None:
    vocabulary = Vocabulary(AutoTokenizer.from_pretrained(models / "text"))
    asked = with_turn(Conversation((), partial_answer="so far"), "hello", None)
    assert vocabulary.render(asked).endswith("<|im_start|>assistant\nso far")
