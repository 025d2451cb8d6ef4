from __future__ import annotations

import re

from tests.mini_voice.conftest import LEXICON
from tools.mini_voice.offline_sentences import offline_answers
from tools.mini_voice.phrases import FIXED, PATTERNS, WORDS
from tools.mini_voice.recognise import spoken_words
from tools.mini_voice.text import Writer, evaluation_sentences, normal_form


def test_the_same_seed_writes_the_same_sentences() -> None:
    first, second, other = (Writer(seed, LEXICON) for seed in (1, 1, 2))
    texts = [first.sentence() for _ in range(200)]
    assert texts == [second.sentence() for _ in range(200)]
    assert texts != [other.sentence() for _ in range(200)]


def test_every_slot_of_every_pattern_is_filled() -> None:
    slots = set(re.findall(r"\{(\w+)\}", " ".join(PATTERNS)))
    assert slots <= WORDS.keys() | {"any", "number", "time", "date", "digits"}
    writer = Writer(4, LEXICON)
    assert not [text for text in (writer.pattern() for _ in range(2000)) if "{" in text]


def test_all_texts_are_ascii_because_the_synthesiser_counts_characters() -> None:
    writer = Writer(5, LEXICON, answers=offline_answers(100))
    assert all(text.isascii() for text in (*FIXED, *(writer.paragraph(3) for _ in range(200))))


def test_what_the_offline_brain_says_is_drawn_in_training() -> None:
    answers = offline_answers(50)
    assert answers == offline_answers(50)
    writer = Writer(6, LEXICON, answers=answers)
    assert any(writer.sentence() in set(answers) for _ in range(300))


def test_evaluation_sentences_are_distinct_and_spelled_out() -> None:
    sentences = evaluation_sentences(200)
    assert len({normal_form(sentence) for sentence in sentences}) == 200
    assert not [sentence for sentence in sentences if re.search(r"\d", sentence)]
    assert sentences[:30] == evaluation_sentences(30)


def test_normal_form_and_spoken_words_ignore_case_and_punctuation() -> None:
    assert normal_form("It's  HERE, now!") == "it's here now"
    assert spoken_words("Don't you? Yes; one-two.") == "don't you yes one two"
