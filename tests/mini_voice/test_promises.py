"""What mini is asked is what the promises say."""

from __future__ import annotations

from tools.mini_voice.ends import judge, sentences
from tools.mini_voice.promises import Answer, paragraph_texts, tokens
from tools.mini_voice.recognise import dictionary, spoken_words
from tools.mini_voice.speak import Said
from tools.regress.words import walk


def test_sentences_of_2_to_40_words_each_once() -> None:
    found = sentences(1000)
    lengths = {len(sentence.split()) for sentence in found}
    assert lengths == set(range(2, 41))
    assert len(set(found)) == 1000


def test_an_end_is_early_late_or_none() -> None:
    def said(frames: int, *, ended: bool = True) -> Said:
        return Said([(0,)] * frames, ended)

    assert judge(said(100), 100) == "fine"
    assert judge(said(100, ended=False), 100) == "runaway"
    assert judge(said(60), 100) == "too short"
    assert judge(said(150), 100) == "too long"
    assert [judge(said(frames), 10) for frames in (4, 6, 15, 17)] == ["too short", "fine", "fine", "too long"]


def test_tokens_are_the_text_and_small() -> None:
    text = "Something unbelievable, isn't it?"
    assert "".join(tokens(text)) == text
    assert max(map(len, tokens(text))) <= 5
    assert len(tokens(text)) > len(text.split())


def test_paragraphs_take_a_minute_and_every_word_can_be_checked() -> None:
    for paragraph in paragraph_texts(4):
        assert 150 <= len(paragraph.split()) <= 175
        assert set(spoken_words(paragraph).split()) <= dictionary()
        assert paragraph.isascii()


def test_silence_is_no_speech() -> None:
    samples = Answer((), "LOST").samples
    assert len(samples) == 0
    assert walk("Hello there.", samples, 24000).skipped == 2  # type: ignore[union-attr]
