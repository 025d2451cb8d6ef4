"""The playout ring in virtual time: what goes in comes out once, in order, faded where it is cut, and never stale."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from common.errors import Overloaded, SequenceGap
from services.gateway.media.playout import Began, Finished, Playout, PlayoutEvent, PlayoutSettings, RanDry, WentOn
from services.gateway.session.ports import BLOCK_S, BLOCK_SAMPLES, Block

FADE = 240
FRAME = 1920


def source(epoch: int, offset: int, count: int) -> NDArray[np.int16]:
    """Sound that can be told from any other: never near zero."""
    place = np.arange(offset, offset + count, dtype=np.int64) * 7919 + epoch * 104729
    return (10000 + place % 20000).astype(np.int16)


class Listener:
    """Plays blocks on the clock and keeps what was heard."""

    def __init__(self, settings: PlayoutSettings | None = None) -> None:
        self.events: list[PlayoutEvent] = []
        self.playout = Playout(self.events.append, settings)
        self.blocks: list[Block] = []

    def put(self, epoch: int, offset: int, count: int) -> bool:
        return self.playout.enqueue(epoch, offset, source(epoch, offset, count))

    def hear(self, blocks: int = 1) -> Block:
        for _ in range(blocks):
            self.blocks.append(self.playout.next_block(len(self.blocks) * BLOCK_S))
        return self.blocks[-1]

    @property
    def speech(self) -> list[Block]:
        return [block for block in self.blocks if block.is_speech]


def exact(block: Block, count: int = BLOCK_SAMPLES) -> bool:
    return np.array_equal(block.samples[:count], source(block.epoch, block.first_sample_offset, count))


def test_sound_comes_out_as_it_went_in() -> None:
    listener = Listener()
    for frame in range(3):
        listener.put(1, frame * FRAME, FRAME)
    listener.playout.end(1)
    listener.hear(13)
    heard = np.concatenate([block.samples for block in listener.blocks])
    assert np.array_equal(heard, np.concatenate([source(1, 0, 3 * FRAME), np.zeros(BLOCK_SAMPLES, np.int16)]))
    assert listener.events == [Began(1, 0.0), Finished(1, 3 * FRAME)]


def test_an_empty_playout_gives_silence_that_nobody_can_write_into() -> None:
    block = Listener().hear()
    assert not block.is_speech
    assert not block.samples.any()
    with pytest.raises(ValueError, match="read-only"):
        block.samples[0] = 1


def test_after_the_floor_rises_only_a_fade_is_heard() -> None:
    listener = Listener()
    listener.put(1, 0, 10 * FRAME)
    listener.hear(3)
    cut = listener.playout.raise_floor(2)
    assert cut == 3 * BLOCK_SAMPLES + FADE == listener.playout.sent(1)
    tail = listener.hear()
    assert tail.first_sample_offset == 3 * BLOCK_SAMPLES
    assert (np.diff(tail.samples[:FADE].astype(float) / source(1, tail.first_sample_offset, FADE)) < 0.001).all()
    assert not tail.samples[FADE:].any()
    listener.hear(5)
    assert listener.blocks[-1].is_speech is False
    assert not listener.put(1, 10 * FRAME, FRAME)
    assert listener.playout.stale_samples == FRAME


def test_whoever_comes_later_does_not_hear_the_fade_of_what_was_cut() -> None:
    listener = Listener()
    listener.put(1, 0, FRAME)
    listener.hear()
    listener.playout.raise_floor(2)
    listener.playout.forget_cut()
    assert not listener.hear().is_speech


def test_whoever_comes_in_a_hold_hears_all_that_was_held() -> None:
    listener = Listener()
    listener.put(1, 0, FRAME)
    listener.hear()
    assert listener.playout.hold() == BLOCK_SAMPLES + FADE
    listener.playout.forget_cut()
    listener.playout.resume()
    assert exact(listener.hear())
    assert listener.blocks[-1].first_sample_offset == BLOCK_SAMPLES


def test_a_new_epoch_is_heard_right_behind_the_fade_of_the_old() -> None:
    listener = Listener()
    listener.put(1, 0, FRAME)
    listener.hear()
    listener.playout.raise_floor(2)
    listener.put(2, 0, FRAME)
    assert [listener.hear().epoch, listener.hear().epoch] == [1, 2]
    assert exact(listener.blocks[-1])


def test_a_hold_goes_on_with_the_very_next_sample() -> None:
    listener = Listener()
    listener.put(1, 0, 10 * FRAME)
    listener.hear(2)
    cut = listener.playout.hold()
    assert cut == 2 * BLOCK_SAMPLES + FADE
    fade, *silence = [listener.hear() for _ in range(10)]
    assert fade.is_speech
    assert not any(block.is_speech for block in silence)
    listener.playout.resume()
    back = listener.hear()
    assert back.first_sample_offset == cut
    assert abs(int(back.samples[0])) < 100
    assert np.array_equal(back.samples[FADE:], source(1, cut + FADE, FADE))
    assert exact(listener.hear())


def test_a_hold_taken_back_before_its_fade_leaves_no_trace() -> None:
    listener = Listener()
    listener.put(1, 0, FRAME)
    listener.hear()
    listener.playout.hold()
    listener.playout.resume()
    assert listener.playout.sent(1) == BLOCK_SAMPLES
    assert exact(listener.hear())


def test_a_hold_before_the_first_sample_keeps_it_from_starting() -> None:
    listener = Listener()
    assert listener.playout.hold() is None
    listener.put(1, 0, FRAME)
    assert not listener.hear().is_speech
    listener.playout.resume()
    assert exact(listener.hear())


def test_an_underrun_fades_and_waits_until_sound_is_worth_starting() -> None:
    listener = Listener()
    listener.put(1, 0, FRAME)
    listener.hear(4)
    assert listener.events[-1] == RanDry(1, FRAME)
    assert np.array_equal(listener.blocks[3].samples[:FADE], source(1, 3 * BLOCK_SAMPLES, FADE))
    assert abs(int(listener.blocks[3].samples[-1])) < 100
    listener.put(1, FRAME, FRAME)
    assert not listener.hear().is_speech  # 80 ms are here, 120 are wanted
    listener.put(1, 2 * FRAME, FRAME)
    back = listener.hear()
    (went_on,) = [event for event in listener.events if isinstance(event, WentOn)]
    assert went_on.pause_s == pytest.approx(0.04)
    assert back.first_sample_offset == FRAME
    assert np.array_equal(back.samples[FADE:], source(1, FRAME + FADE, FADE))


def test_an_ended_epoch_never_waits_for_more() -> None:
    listener = Listener()
    listener.put(1, 0, FRAME)
    listener.hear(5)
    listener.put(1, FRAME, 100)
    listener.playout.end(1)
    block = listener.hear()
    assert block.is_speech
    assert not block.samples[100:].any()
    assert listener.events[-1] == Finished(1, FRAME + 100)


def test_an_epoch_without_sound_finishes_too() -> None:
    listener = Listener()
    listener.playout.begin(4)
    listener.playout.end(4)
    listener.hear()
    assert listener.events == [Finished(4, 0)]


def test_sound_that_runs_out_stops_at_a_marked_boundary() -> None:
    listener = Listener(PlayoutSettings(low_s=0.06))
    listener.put(1, 0, FRAME)
    listener.playout.mark_boundary(1, 3 * BLOCK_SAMPLES - 100)
    listener.hear(4)
    assert RanDry(1, 3 * BLOCK_SAMPLES - 100) in listener.events
    assert not listener.blocks[-1].is_speech
    listener.put(1, FRAME, 2 * FRAME)
    assert listener.hear().first_sample_offset == 3 * BLOCK_SAMPLES - 100


def test_a_prebuffer_delays_the_first_sample() -> None:
    listener = Listener()
    listener.playout.begin(1, prebuffer_s=0.16)
    listener.put(1, 0, FRAME)
    assert not listener.hear().is_speech
    listener.put(1, FRAME, FRAME)
    assert exact(listener.hear())


def test_what_comes_twice_is_heard_once_and_a_gap_is_refused() -> None:
    listener = Listener()
    listener.put(1, 0, FRAME)
    listener.put(1, 1000, FRAME)
    assert listener.playout.lead_s == pytest.approx((1000 + FRAME) / 24000)
    with pytest.raises(SequenceGap):
        listener.put(1, 1001 + FRAME, FRAME)


def test_a_full_ring_refuses() -> None:
    listener = Listener(PlayoutSettings(capacity_s=0.1))
    listener.put(1, 0, FRAME)
    with pytest.raises(Overloaded):
        listener.put(1, FRAME, FRAME)


def test_a_newer_epoch_waits_behind_the_one_that_is_heard() -> None:
    listener = Listener()
    listener.put(1, 0, FRAME)
    listener.put(2, 0, FRAME)
    listener.playout.end(1)
    assert [listener.hear().epoch for _ in range(5)] == [1, 1, 1, 1, 2]
    assert not listener.put(1, FRAME, FRAME)


OPERATIONS = st.lists(
    st.one_of(
        st.tuples(st.just("put"), st.integers(1, 4000)),
        st.tuples(st.just("hear"), st.integers(1, 6)),
        st.tuples(st.sampled_from(["hold", "resume", "floor", "end", "mark", "stale"]), st.just(0)),
    ),
    max_size=60,
)


@given(OPERATIONS)
def test_any_history_is_heard_once_in_order_and_never_stale(operations: list[tuple[str, int]]) -> None:
    listener, epoch, put = Listener(), 1, {1: 0}
    ended: set[int] = set()
    listener.playout.raise_floor(epoch)
    for name, value in operations:
        match name:
            case "put" if epoch not in ended:
                assert listener.put(epoch, put[epoch], value)
                put[epoch] += value
            case "hear":
                for _ in range(value):
                    check(listener, epoch, put)
            case "hold":
                listener.playout.hold()
            case "resume":
                listener.playout.resume()
            case "end":
                listener.playout.end(epoch)
                ended.add(epoch)
            case "mark":
                listener.playout.mark_boundary(epoch, put[epoch])
            case "floor":
                epoch += 1
                put[epoch] = 0
                cut = listener.playout.raise_floor(epoch)
                tail = listener.hear()
                if tail.is_speech:
                    assert tail.epoch < epoch
                    assert not tail.samples[FADE:].any()
                    assert listener.playout.sent(tail.epoch) == cut
            case "stale":
                assert not listener.put(epoch - 1, 0, 100)
    contiguous(listener.speech)
    if not {"hold", "floor"} & {name for name, _ in operations}:
        listener.playout.end(epoch)
        listener.hear(2 + sum(put.values()) // BLOCK_SAMPLES * 2)
        assert listener.playout.sent(epoch) == put[epoch]
        assert [event for event in listener.events if isinstance(event, Finished)] == [Finished(epoch, put[epoch])]


def check(listener: Listener, epoch: int, put: dict[int, int]) -> None:
    """One more block: of this epoch or silent, and what of it is not at an edge is what went in."""
    before = listener.playout.sent(epoch)
    block = listener.hear()
    if not block.is_speech:
        assert not block.samples.any()
        return
    count = listener.playout.sent(epoch) - before
    assert (block.epoch, block.samples.size) == (epoch, BLOCK_SAMPLES)
    if block.first_sample_offset != before:  # a fade that a hold had cut already
        assert count == 0
        return
    expected = source(epoch, before, count)
    assert (np.abs(block.samples[:count]) <= expected).all()
    assert not block.samples[count:].any()
    middle = slice(FADE, max(FADE, count - FADE))
    assert np.array_equal(block.samples[middle], expected[middle])
    assert before + count <= put[epoch]


def contiguous(blocks: list[Block]) -> None:
    """Every epoch after the one before it, every block behind the sample that was heard last."""
    ends: dict[int, int] = {}
    for block in blocks:
        assert block.epoch >= max(ends, default=0)
        assert block.first_sample_offset >= ends.get(block.epoch, 0)
        ends[block.epoch] = block.first_sample_offset + max(1, int(np.flatnonzero(block.samples).max(initial=0)) + 1)
