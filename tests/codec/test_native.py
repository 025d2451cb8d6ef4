"""The compiled snake activation against its formula in float64; the whole decoder on it is in `test_parity.py`."""

from __future__ import annotations

import pytest
import torch

from services.codec.native.snake import NativeSnake


def drawn(*shape: int, scale: float = 1.0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape))) * scale


@pytest.mark.parametrize("scale", [0.01, 1.0, 30.0, 1000.0, 1e7])
@pytest.mark.parametrize("channels", [1, 7, 16, 96])
def test_an_activation_is_its_formula_in_float64(native_snake: NativeSnake, channels: int, scale: float) -> None:
    x, alpha, inverse_beta = drawn(2, 9, channels, scale=scale), drawn(channels).exp(), drawn(channels).exp()
    past, kept = drawn(2, 6, channels), torch.zeros(2, 6, channels)
    got = native_snake(x, alpha, inverse_beta, past, kept)[:, 6:].double()
    expected = x.double() + (x * alpha).double().sin().square() * inverse_beta.double()
    exact_to = 2**-24 * (expected.abs() + 4 * inverse_beta.double())
    beyond = (x * alpha).abs().double() > 2**13 * torch.pi  # where no float32 says which half of the wave it is in
    assert ((got - expected).abs() <= torch.where(beyond, 2 * inverse_beta.double(), exact_to)).all()


@pytest.mark.parametrize("columns", [0, 2, 6, 54])
def test_the_past_comes_first_and_the_end_is_kept(native_snake: NativeSnake, columns: int) -> None:
    rows, length, channels = 3, 5, 24
    memory = drawn(rows, 2 * columns * channels + 7)  # as in the state: rows lie further apart than they are long
    past = memory[:, 7 : 7 + columns * channels].view(rows, columns, channels)
    kept = torch.zeros_like(memory)[:, 7 : 7 + columns * channels].view(rows, columns, channels)
    x, ones = drawn(rows, length, channels), torch.ones(channels)
    out = native_snake(x, ones, ones, past, kept)
    assert torch.equal(out[:, :columns], past)
    assert torch.equal(kept, out[:, length:])
    alone = torch.cat([native_snake(x[[row]], ones, ones, past[[row]], kept[[row]].clone()) for row in range(rows)])
    assert torch.equal(out, alone)
