from __future__ import annotations

import numpy as np
from tokenizers import Tokenizer

from tools.mini_voice import vocabulary
from tools.mini_voice.synthesiser import Phone, Word
from tools.mini_voice.timing import FRAME_S, LEAD_FRAMES, chars_by_frame, phones_by_frame

TEXT = "abcd efgh."
WORDS = (Word(0.0, 0, 4), Word(0.48, 5, 4))
PHONES = (Phone(0.0, "a"), Phone(0.32, "_:"), Phone(0.48, "e"), Phone(0.80, "_:"))


def test_a_character_is_spoken_in_each_frame_and_a_pause_stands_behind_its_word() -> None:
    # lead of two frames; 0.32 s of four letters: one letter a frame; two frames of pause; four letters; the end
    assert LEAD_FRAMES == 2
    assert FRAME_S == 0.08
    assert chars_by_frame(TEXT, WORDS, PHONES, 14) == [0, 0, 0, 1, 2, 3, 4, 4, 5, 6, 7, 8, 9, 9]


def test_phonemes_are_read_twice_a_frame_and_silence_is_an_underscore() -> None:
    rows = phones_by_frame(PHONES, 14)
    assert rows[1] == ["_", "_"]
    assert rows[2] == ["a", "a"]
    assert rows[6] == ["_", "_"]
    assert rows[8] == ["e", "e"]
    assert rows[13] == ["_", "_"]


def test_each_character_belongs_to_the_token_that_spells_it(tokenizer: Tokenizer) -> None:
    text = "The yellow dog, and the snow."
    ids, starts = vocabulary.encode(tokenizer, text)
    found = vocabulary.token_at(starts, np.arange(len(text) + 1), len(text))
    for token, start in enumerate(starts):
        end = starts[token + 1] if token + 1 < len(ids) else len(text)
        assert tokenizer.decode([ids[token]]).replace("Ġ", " ") == text[start:end]
        assert set(found[start:end]) == {token}
    assert found[-1] == len(ids)
