"""Streaming is exact: any packets, any batch mates, cold beside warm, slots used again: as one undivided decode.

In float64, so that equality can be asked for to 1e-9.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from services.codec.model.decoder import Decoder
from services.codec.model.streaming import EXACT_POSITIONS, DecoderState, Rotary, rotate
from tests.codec.hearing import FRAME, random_codes, whole

SLOTS, MAX_FRAMES, LONGEST = 4, 4, 40
EXACT = {"rtol": 0, "atol": 1e-9}


@dataclass
class Stream:
    """A slot's tenant: the same frames cut differently must sound the same."""

    seed: int
    fresh: bool = True
    heard: list[np.ndarray] = field(default_factory=list)
    at: int = 0


@pytest.mark.timeout(60)
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_any_schedule_of_any_streams_sounds_like_each_alone(tiny_decoder: Decoder, data: st.DataObject) -> None:
    state = tiny_decoder.new_state(SLOTS + 1, MAX_FRAMES)
    tenants: dict[int, Stream] = {}
    finished: list[Stream] = []
    seeds = iter(range(1000))
    for _ in range(data.draw(st.integers(1, 25), label="steps")):
        rows = data.draw(st.lists(st.integers(0, SLOTS - 1), min_size=1, max_size=SLOTS, unique=True), label="rows")
        for slot in rows:  # some slots change hands, without a word to the state
            if slot not in tenants or data.draw(st.integers(0, 9), label="leave") == 0:
                finished.append(tenants.pop(slot, Stream(0)))
                tenants[slot] = Stream(next(seeds))
        frames = data.draw(st.integers(1, MAX_FRAMES), label="frames")
        padding = data.draw(st.integers(0, 2), label="padding")
        step(tiny_decoder, state, [(slot, tenants[slot]) for slot in rows], frames, padding)
    for stream in [*finished, *tenants.values()]:
        if stream.at:
            codes = random_codes(LONGEST * 5, stream.seed)[: stream.at]
            np.testing.assert_allclose(np.concatenate(stream.heard), whole(tiny_decoder, codes), **EXACT)


def step(decoder: Decoder, state: DecoderState, rows: list[tuple[int, Stream]], frames: int, padding: int = 0) -> None:
    """Advance these tenants; padding rows all point at the last slot, as a captured batch's do."""
    codes = [random_codes(LONGEST * 5, s.seed)[s.at : s.at + frames] for _, s in rows]
    active = [slot for slot, _ in rows] + [state.slot_count - 1] * padding
    fresh = [s.fresh for _, s in rows] + [True] * padding
    samples = decoder(torch.tensor(codes + [codes[0]] * padding), state, torch.tensor(active), torch.tensor(fresh))
    for (_, stream), sound in zip(rows, samples, strict=False):
        stream.heard.append(sound.numpy())
        stream.at, stream.fresh = stream.at + frames, False


def test_rows_outside_active_keep_their_state_bit_for_bit(tiny_decoder: Decoder) -> None:
    state = tiny_decoder.new_state(SLOTS, MAX_FRAMES)
    for slot in range(SLOTS):
        step(tiny_decoder, state, [(slot, Stream(slot))], 3)
    before = {name: tensor.clone() for name, tensor in parts(state).items()}
    step(tiny_decoder, state, [(1, Stream(9)), (3, Stream(8))], 4)
    for name, tensor in parts(state).items():
        for slot in (0, 2):
            assert torch.equal(tensor[slot], before[name][slot]), name
        assert not torch.equal(tensor[1], before[name][1]), name


def parts(state: DecoderState) -> dict[str, torch.Tensor]:
    layers = {f"{kind} {i}": t for kind in ("keys", "values") for i, t in enumerate(getattr(state, kind))}
    return {**layers, "tails": state.tails, "position": state.position}


def test_a_copied_state_goes_on_like_the_original(tiny_decoder: Decoder) -> None:
    state = tiny_decoder.new_state(3, MAX_FRAMES)
    original = Stream(5)
    for _ in range(6):
        step(tiny_decoder, state, [(0, original)], 3)
    state.copy_slot(0, 2)
    copy = Stream(5, fresh=False, at=original.at)
    step(tiny_decoder, state, [(2, copy), (0, original)], 2)
    assert np.array_equal(copy.heard[-1], original.heard[-1])


def test_the_state_never_moves_or_grows(tiny_decoder: Decoder) -> None:
    state = tiny_decoder.new_state(2, MAX_FRAMES)
    places = [t.data_ptr() for t in parts(state).values()]
    size = state.byte_count()
    stream = Stream(1)
    for frames in (1, 4, 2, 3):
        step(tiny_decoder, state, [(0, stream)], frames)
    assert [t.data_ptr() for t in parts(state).values()] == places
    assert state.byte_count() == size


@pytest.mark.parametrize("start", [EXACT_POSITIONS - 5, 10**6, 10**9])
def test_a_stream_that_has_run_for_years_sounds_like_a_young_one(tiny_decoder: Decoder, start: int) -> None:
    """Only differences of positions matter; a stream of 10^9 frames is 2.5 years old."""
    young, old = run_from(tiny_decoder, 0), run_from(tiny_decoder, start)
    np.testing.assert_allclose(old, young, rtol=0, atol=2e-6)


def run_from(decoder: Decoder, position: int) -> np.ndarray:
    """Twenty frames behind a full window of others, the first of which has this position."""
    state = decoder.new_state(1, MAX_FRAMES)
    stream = Stream(3, fresh=False)
    state.position.fill_(position)
    window = decoder.config.sliding_window
    warm = Stream(4, fresh=False)
    for _ in range(window):  # more than a window, so that no position before the start is seen
        step(decoder, state, [(0, warm)], MAX_FRAMES)
    for _ in range(5):
        step(decoder, state, [(0, stream)], MAX_FRAMES)
    return np.concatenate(stream.heard)


def test_rotation_by_position_is_true_to_float32_after_years() -> None:
    rotary = Rotary(64, 10_000.0, torch.float32, torch.device("cpu"))
    x = torch.randn(1, 1, 1, 64, generator=torch.Generator().manual_seed(0))
    products = []
    for start in (0, 10**6, 10**9):
        q, k = (rotate(x, *rotary.angles(torch.tensor([[start + gap]]))) for gap in (0, 50))
        products.append(float((q * k).sum()))
    assert max(products) - min(products) < 1e-4


def test_silence_in_the_codes_is_not_special(tiny_decoder: Decoder) -> None:
    """Frame 0 of codes is a frame like any other: no padding value hides in the range."""
    codes = ((0,) * 16,) * 6
    stream, state = [], tiny_decoder.new_state(1, MAX_FRAMES)
    for i in range(6):
        fresh = torch.tensor([i == 0])
        stream.append(tiny_decoder(torch.tensor([[codes[i]]]), state, torch.tensor([0]), fresh)[0].numpy())
    assert stream[0].size == FRAME
    np.testing.assert_allclose(np.concatenate(stream), whole(tiny_decoder, codes), **EXACT)
