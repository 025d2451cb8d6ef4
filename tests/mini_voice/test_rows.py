from __future__ import annotations

import numpy as np
import pytest
from tokenizers import Tokenizer

from services.tts_lm.model.config import load_config
from services.tts_lm.model.prompt import PromptRow, Script, Speaker, build_prompt
from services.tts_lm.model.tokenizer import load_tokenizer
from tests.mini_voice.conftest import Untrained
from tools.mini_voice.batches import special_ids
from tools.mini_voice.dimensions import USED_CODEBOOKS
from tools.mini_voice.rows import NOTHING, build
from tools.mini_voice.voices import VOICES


@pytest.mark.parametrize("auto", [False, True])
@pytest.mark.parametrize("whole", [False, True])
def test_training_reads_the_rows_that_serving_reads(
    untrained: Untrained, tokenizer: Tokenizer, whole: bool, auto: bool
) -> None:
    config, served = load_config(untrained.directory), load_tokenizer(untrained.directory)
    text, voice = "Hello there, old friend.", 1
    tokens = served.target(text)
    codes = np.arange(5 * USED_CODEBOOKS).reshape(5, USED_CODEBOOKS)
    rows = build(special_ids(tokenizer), tokens, codes, np.zeros(5, np.int64), voice, whole=whole, auto_language=auto)
    prompt = build_prompt(
        config,
        role=served.role(),
        instruct=(),
        language_id=None if auto else config.languages["english"],
        speaker=Speaker(control_id=config.speakers[VOICES[voice].name]),
        layout="whole" if whole else "streaming",
    )
    script = Script(config)
    script.feed(tokens)
    script.finish()
    expected = list(prompt.rows(script))
    read = prompt.read_before_first_frame(script)
    assert read is not None
    first = len(expected) - 1
    for i, frame in enumerate(codes):
        row = script.row(read + i)
        assert row is not None
        expected.append(PromptRow(row, tuple(int(code) for code in frame)))
    found = [
        PromptRow(int(t), None if c == NOTHING else (int(c), *map(int, r)) if r[0] != NOTHING else int(c))
        for t, c, r in zip(rows.text, rows.codec, rows.codes, strict=True)
    ]
    assert found == expected
    assert list(rows.label[first:]) == [*codes[:, 0], config.codec.eos]
    assert set(rows.label[:first]) == {NOTHING}


def test_a_token_is_a_target_only_once_it_has_been_read(tokenizer: Tokenizer) -> None:
    codes = np.zeros((4, USED_CODEBOOKS), np.int64)
    spoken = np.array([0, 3, 1, 9])
    rows = build(special_ids(tokenizer), [5] * 9, codes, spoken, 0, whole=False)
    first = len(rows) - 5
    assert list(rows.target[first:]) == [first, NOTHING, first + 1, NOTHING, NOTHING]
