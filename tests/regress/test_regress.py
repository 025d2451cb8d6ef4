from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tools.regress import texts
from tools.regress.__main__ import LongText, no_worse, summary
from tools.regress.measure import joins, measure
from tools.regress.page import Take, page
from tools.regress.words import Walk, compare, grammar

RATE, FRAME = 24000, 1920


def tone(seconds: float) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
    return (0.5 * np.sin(2 * np.pi * 313.7 * np.arange(int(seconds * RATE)) / RATE)).astype(np.float32)


def silence(seconds: float) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
    return np.zeros(int(seconds * RATE), np.float32)


def take(layout: str, *, walk: Walk | None = None, recognised: bool = True, ended: bool = True) -> Take:
    sound = measure(tone(0.5), RATE, FRAME)
    return Take("Hello.", layout, "a.wav", sound, walk or Walk(0, 0, 5), recognised, ended)


def test_there_are_sixty_short_twenty_long_and_two_very_long_texts() -> None:
    assert (len(set(texts.SHORT)), len(set(texts.LONG))) == (60, 20)
    assert max(len(text.split()) for text in texts.SHORT) < min(len(text.split()) for text in texts.LONG)
    first, second = texts.ten_minutes(1), texts.ten_minutes(2)
    assert first != second
    assert first == texts.ten_minutes(1)
    assert 1400 <= len(first.split()) < 1430
    minutes = texts.minutes(first)
    assert " ".join(minutes) == first
    assert 9 <= len(minutes) <= 11
    assert all(70 <= len(minute.split()) < 230 for minute in minutes)
    assert not any(character.isdigit() for character in first)


def test_ten_minutes_hold_when_the_last_is_as_good_as_the_first() -> None:
    good = LongText(1, ended=True, wrong=(0.02, 0.03), level_db=(-20.0, -20.5))
    assert good.holds
    assert not replace(good, ended=False).holds
    assert not replace(good, wrong=(0.0, 0.05)).holds
    assert replace(good, wrong=(None, None)).holds
    assert "words unchecked" in str(replace(good, wrong=(None, None)))
    assert "last 3.0 words in a hundred skipped or repeated at -20.5 dB" in str(good)
    assert not replace(good, level_db=(-20.0, -23.0)).holds


def test_silence_before_within_and_behind_is_measured() -> None:
    found = measure(np.concatenate([silence(0.2), tone(0.5), silence(0.3), tone(0.5), silence(0.1)]), RATE, FRAME)
    assert found.seconds == pytest.approx(1.6)
    assert found.lead_s == pytest.approx(0.2)
    assert found.longest_pause_s == pytest.approx(0.3)
    assert found.tail_s == pytest.approx(0.1)
    assert found.clipped_share == 0
    assert -14 < found.level_db < -10


def test_a_sound_of_nothing_is_measured_too() -> None:
    assert measure(np.zeros(0, np.float32), RATE, FRAME).seconds == 0
    assert measure(silence(1), RATE, FRAME).lead_s == 0


def test_clicks_at_frame_borders_are_heard() -> None:
    smooth = tone(1.6)
    clicking = smooth.copy()
    clicking[FRAME::FRAME] += 0.2
    assert joins(smooth, FRAME) == pytest.approx(1, abs=0.4)
    assert joins(clicking, FRAME) > 5


def test_skipped_and_repeated_words_are_counted() -> None:
    words = ["we", "saw", "the", "old", "house"]
    assert compare(words, words) == Walk(0, 0, 5)
    assert compare(words, ["we", "saw", "old", "house"]) == Walk(1, 0, 5)
    assert compare(words, ["we", "saw", "saw", "the", "old", "house"]) == Walk(0, 1, 5)
    assert grammar(["we", "saw"]).endswith("public <walk> = we* saw*;")


def test_streaming_passes_only_when_it_keeps_up() -> None:
    whole = [take("whole") for _ in range(10)]
    good = [take("streaming") for _ in range(10)]
    assert no_worse([*whole, *good])
    for worse in (take("streaming", ended=False), take("streaming", recognised=False)):
        assert not no_worse([*whole, *good[1:], worse])
    assert not no_worse([*whole, *good[1:], take("streaming", walk=Walk(2, 0, 5))])
    assert no_worse([take("whole", walk=Walk(2, 0, 5)), take("streaming", walk=Walk(2, 0, 5))])


def test_the_page_shows_both_layouts_and_names_faults() -> None:
    takes = [take("streaming", walk=Walk(1, 0, 5), ended=False), replace(take("whole"), file="b & c.wav")]
    text = page("mini", [summary(takes, "streaming")], takes)
    assert text.count("<audio") == 2
    assert "1 skipped, 0 repeated of 5" in text
    assert "did not end by itself" in text
    assert "b &amp; c.wav" in text
    assert "ended 0 of 1" in text
