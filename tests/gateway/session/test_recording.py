"""The last of a microphone, by position."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from services.gateway.session.recording import Recording


def numbers(first, count):
    return np.arange(first, first + count).astype(np.int16)


@given(st.lists(st.integers(0, 700), max_size=40), st.integers(0, 12_000), st.integers(0, 12_000))
def test_any_cut_is_what_was_said_there_as_far_as_it_is_kept(sizes, first, last):
    recording, said = Recording(0.2), 0
    for size in sizes:
        recording.add(numbers(said, size), 1.0)
        said += size
    found = np.frombuffer(recording.cut(first, last), "<i2")
    expected = numbers(first, max(0, min(last, said) - first))
    assert np.array_equal(found, expected[expected.size - found.size :])
    kept_from = max(first, said - 3200)
    assert found.size >= max(0, min(last, said) - kept_from)


def test_it_forgets_what_is_older_than_asked():
    recording = Recording(1.0)
    for second in range(100):
        recording.add(numbers(0, 16000), float(second))
    assert len(recording.cut(0)) <= 2 * 2 * 16000


def test_a_position_has_its_time():
    recording = Recording(10.0)
    recording.add(numbers(0, 16000), 5.0)
    recording.add(numbers(0, 8000), 5.5)
    assert recording.time_of(24000) == 5.5
    assert recording.time_of(8000) == 4.5
