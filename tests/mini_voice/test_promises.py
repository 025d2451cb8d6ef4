"""What mini is asked is what the promises say."""

from __future__ import annotations

from tools.mini_voice.promises import Answer, paragraph_texts, stop_sentences
from tools.mini_voice.recognise import dictionary, spoken_words
from tools.regress.words import walk


def test_sentences_of_2_to_40_words_each_once() -> None:
    sentences = stop_sentences(1000)
    lengths = {len(sentence.split()) for sentence in sentences}
    assert lengths == set(range(2, 41))
    assert len(set(sentences)) == 1000


def test_paragraphs_take_a_minute_and_every_word_can_be_checked() -> None:
    for paragraph in paragraph_texts(4):
        assert 150 <= len(paragraph.split()) <= 175
        assert set(spoken_words(paragraph).split()) <= dictionary()
        assert paragraph.isascii()


def test_silence_is_no_speech() -> None:
    samples = Answer((), "LOST").samples
    assert len(samples) == 0
    assert walk("Hello there.", samples, 24000).skipped == 2  # type: ignore[union-attr]
