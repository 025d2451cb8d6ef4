"""What was heard of an answer."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.gateway.turns.heard import SAMPLE_RATE_HZ, SAMPLES_PER_FRAME, HeardLedger, SpeakingPace, word_end

TEXT = "Hello there, this is a rather long answer. It goes on for a while, as answers do."


def ledger(text: str, seconds: float, finished: bool, pace: SpeakingPace | None = None) -> HeardLedger:
    """An answer in packets of one frame whose talker reads a character per 20 ms."""
    made = HeardLedger(pace or SpeakingPace())
    made.add_text(text)
    for frame in range(round(seconds / 0.08)):
        made.add_audio(frame * SAMPLES_PER_FRAME, SAMPLES_PER_FRAME, min((frame + 1) * 4, len(text)))
    if finished:
        made.finish()
    return made


def test_nothing_was_heard_of_what_the_client_still_buffers() -> None:
    heard = ledger(TEXT, 6, finished=True).heard(1_900, client_buffer_s=0.08)
    assert (heard.sample_count, heard.frame_count, heard.character_count, heard.text) == (0, 0, 0, "")


def test_a_finished_answer_that_was_played_was_heard_whole() -> None:
    heard = ledger(TEXT, 6, finished=True).heard(10**9, client_buffer_s=0.1)
    assert heard.text == TEXT
    assert heard.sample_count == 6 * SAMPLE_RATE_HZ


def test_half_of_a_finished_answer_is_about_half_of_its_text() -> None:
    heard = ledger(TEXT, 6, finished=True).heard(3 * SAMPLE_RATE_HZ, client_buffer_s=0.0)
    assert 0.35 * len(TEXT) < heard.character_count < 0.65 * len(TEXT)
    assert heard.frame_count == 37
    assert not TEXT[heard.character_count].isalnum()


def test_the_talker_reads_ahead_and_the_words_it_has_not_said_yet_do_not_count() -> None:
    made = HeardLedger(SpeakingPace())
    made.add_text(TEXT)
    made.add_audio(0, SAMPLE_RATE_HZ, len(TEXT))
    assert made.heard(SAMPLE_RATE_HZ, 0.0).character_count < len(TEXT) / 2


def test_what_the_talker_had_not_read_was_not_heard() -> None:
    made = HeardLedger(SpeakingPace())
    made.add_text(TEXT)
    made.add_audio(0, 30 * SAMPLE_RATE_HZ, 7)
    assert made.heard(30 * SAMPLE_RATE_HZ, 0.0).text == "Hello"


def test_the_pace_of_a_voice_is_learned_from_what_it_finished() -> None:
    slow = SpeakingPace()
    for _ in range(10):
        ledger(TEXT, 12, finished=True, pace=slow)
    usual = ledger(TEXT, 6, finished=False).heard(3 * SAMPLE_RATE_HZ, 0.0)
    assert ledger(TEXT, 6, finished=False, pace=slow).heard(3 * SAMPLE_RATE_HZ, 0.0).character_count < (
        usual.character_count
    )


@pytest.mark.parametrize(
    ("text", "limit", "expected"),
    [
        ("Hello, world", 12, "Hello, world"),
        ("Hello, world", 11, "Hello,"),
        ("Hello, world", 5, "Hello"),
        ("Hello, world", 4, ""),
        ("it is 3.14 long", 8, "it is"),
        ("don't stop", 4, ""),
        ("你好世界", 2, "你好"),
        ("say 你好 now", 5, "say 你"),
        ("ไทยดี", 3, "ไทย"),
        ("e\u0301tude", 1, ""),
        ("x" * 300, 200, "x" * 200),
        ("", 5, ""),
    ],
)
def test_a_text_is_cut_where_a_word_is_over(text: str, limit: int, expected: str) -> None:
    assert text[: word_end(text, limit)] == expected


def test_the_last_word_of_an_unfinished_text_may_not_be_over() -> None:
    assert word_end("Hello wor", 9, complete=False) == 5
    assert word_end("Hello wor.", 10, complete=False) == 10
    assert word_end("你好", 2, complete=False) == 2


@given(st.text(max_size=60), st.integers(0, 12_000), st.floats(0, 1), st.booleans(), st.integers(1, 40))
def test_more_sound_is_never_less_text_and_never_more_than_was_read(
    text: str, sent: int, buffer_s: float, finished: bool, packets: int
) -> None:
    made = HeardLedger(SpeakingPace())
    made.add_text(text)
    for packet in range(packets):
        made.add_audio(packet * 480, 480, packet)
    if finished:
        made.finish()
    heard, more = made.heard(sent, buffer_s), made.heard(sent + 480, buffer_s)
    assert heard.character_count <= more.character_count
    assert heard.sample_count <= min(sent, packets * 480)
    assert text.startswith(heard.text)
    if not (finished and heard.sample_count == packets * 480):
        assert heard.character_count <= max(packets - 1, 0)


@given(st.lists(st.text(max_size=8), max_size=8), st.integers(0, 100_000))
def test_how_the_text_was_cut_changes_nothing(parts: list[str], sent: int) -> None:
    whole, cut = HeardLedger(SpeakingPace()), HeardLedger(SpeakingPace())
    whole.add_text("".join(parts))
    for part in parts:
        cut.add_text(part)
    for made in (whole, cut):
        made.add_audio(0, 48_000, 20)
    assert whole.heard(sent, 0.0) == cut.heard(sent, 0.0)
