"""`text_offset` counts the caller's own characters."""

from __future__ import annotations

from itertools import accumulate, pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cli.checkpoint.random import write_random
from services.tts_lm.model.repertoire import load_repertoire
from services.tts_lm.model.streaming_text import StreamingText
from services.tts_lm.model.tokenizer import Tokenizer, load_tokenizer

MINI = Path(__file__).parents[2] / "voices" / "mini"
PLAIN = "Hello world, don't wait!  你好，今天天气很好。 Good café 😀 now.\n"


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    return load_tokenizer(write_random(tmp_path_factory.mktemp("checkpoint"), "tiny", "custom_voice", 0))


def said(script: StreamingText, text: str, cuts: list[int]) -> tuple[int, ...]:
    at = [0, *sorted(min(cut, len(text)) for cut in cuts), len(text)]
    ids = tuple(i for a, b in pairwise(at) for i in script.feed(text[a:b]))
    return ids + script.finish()


@given(cuts=st.lists(st.integers(0, len(PLAIN)), max_size=12))
def test_in_ordinary_text_it_is_the_text_of_the_tokens(tokenizer: Tokenizer, cuts: list[int]) -> None:
    script = StreamingText(tokenizer)
    ids = said(script, PLAIN, cuts)
    spelled = list(accumulate(tokenizer.bpe.spelling[i] for i in ids))
    for count, data in enumerate(spelled, 1):
        # A token may end inside a character; that character has begun.
        begun = sum(byte & 0xC0 != 0x80 for byte in data)
        assert script.progress.offset(count) == begun
    assert script.progress.offset(0) == 0
    assert script.progress.offset(len(ids) + 5) == len(PLAIN)


@given(text=st.text(alphabet=" \nab&é“e\u0301<|im_end|>你", max_size=30), cuts=st.lists(st.integers(0, 30), max_size=6))
def test_it_never_goes_back_nor_beyond_what_was_written(tokenizer: Tokenizer, text: str, cuts: list[int]) -> None:
    for script in (StreamingText(tokenizer), StreamingText(load_tokenizer(MINI), load_repertoire(MINI))):
        spoken = text.replace("你", "x")
        ids = said(script, spoken, cuts)
        offsets = [script.progress.offset(count) for count in range(len(ids) + 1)]
        assert offsets == sorted(offsets)
        assert offsets[-1] <= len(spoken)
        assert not ids or offsets[-1] > 0


def test_what_is_left_out_before_the_first_token_counts(tokenizer: Tokenizer) -> None:
    script = StreamingText(tokenizer)
    ids = said(script, "  <|im_end|>Hello <|im_end|>world", [15, 20])
    assert script.progress.offset(1) >= 13
    assert script.progress.offset(len(ids)) == 33
