"""A voice that says what it can say is never given anything else."""

from __future__ import annotations

import json
import shutil
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.errors import InvalidRequest
from services.tts_lm.load import create_engine
from services.tts_lm.model.config import CheckpointError
from services.tts_lm.model.repertoire import Repertoire, load_repertoire
from services.tts_lm.model.streaming_text import StreamingText
from services.tts_lm.model.tokenizer import load_tokenizer
from services.tts_lm.types import Ended, EngineOptions, UtteranceRequest

MINI = Path(__file__).parents[2] / "voices" / "mini"
SMALL = Repertoire(frozenset("abc ,"), {"ä": "a", "&": " b ", "\u0301": ""}, "letters")


def test_what_it_knows_passes_and_what_it_reads_as_something_else_is_replaced() -> None:
    assert SMALL.admit("abc, cab") == "abc, cab"
    assert SMALL.admit("aä&c\u0301") == "aa b c"


def test_what_it_does_not_know_is_named() -> None:
    with pytest.raises(InvalidRequest, match="cannot say '你'") as refused:
        SMALL.admit("ab 你")
    assert refused.value.reason == "UNSUPPORTED"
    assert refused.value.metadata["character"] == "U+4F60"


def test_an_official_checkpoint_says_nothing_and_is_given_everything(tmp_path: Path) -> None:
    assert load_repertoire(tmp_path) is None


@pytest.mark.parametrize(
    "content",
    [
        {},
        {"characters": "ab", "read_as": {"xy": "a"}, "speaks": "x"},
        {"characters": "ab", "read_as": {"x": "c"}, "speaks": "x"},
        {"characters": "ab", "read_as": {"x": 1}, "speaks": "x"},
        {"characters": "ab", "read_as": {}, "speaks": "x", "steady_characters": -1},
        {"characters": "ab", "read_as": {}, "speaks": "x", "steady_characters": "many"},
    ],
)
def test_a_file_that_means_nothing_is_refused(tmp_path: Path, content: dict[str, object]) -> None:
    (tmp_path / "repertoire.json").write_text(json.dumps(content))
    with pytest.raises(CheckpointError):
        load_repertoire(tmp_path)


@given(st.text(alphabet="He lo,&é…\u0301“”<|im_end|>", max_size=40), st.lists(st.integers(0, 40), max_size=8))
def test_no_cut_changes_what_is_read(text: str, cuts: list[int]) -> None:
    tokenizer, repertoire = load_tokenizer(MINI), load_repertoire(MINI)
    whole, cut = StreamingText(tokenizer, repertoire), StreamingText(tokenizer, repertoire)
    at = [0, *sorted(min(point, len(text)) for point in cuts), len(text)]
    pieces = [text[a:b] for a, b in pairwise(at)]
    once = (*whole.feed(text), *whole.finish())
    assert tuple(i for piece in pieces for i in cut.feed(piece)) + cut.finish() == once


async def test_the_engine_refuses_and_goes_on(tmp_path: Path) -> None:
    model = shutil.copytree(MINI, tmp_path / "mini")
    engine = create_engine(EngineOptions(model=str(model), slot_count=1, device="cpu"))
    await engine.start()
    try:
        utterance = engine.submit(UtteranceRequest())
        with pytest.raises(InvalidRequest, match="speaks English"):
            utterance.feed("Hello 世界")
        utterance.cancel()
        assert [type(event).__name__ async for event in utterance][-1] == "Ended"
        utterance = engine.submit(UtteranceRequest())
        utterance.feed("Café “hello” – 5 %.")
        utterance.flush()
        ended = [event async for event in utterance][-1]
        assert isinstance(ended, Ended)
        assert ended.frame_count > 5
    finally:
        await engine.close()
