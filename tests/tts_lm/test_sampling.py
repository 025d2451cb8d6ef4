"""Sampling: the same distribution as the reference's processors, and draws that are a function of (seed, frame,
codebook).
"""

from __future__ import annotations

import numpy as np
import pytest
import torch

from services.tts_lm.model.randomness import frame_uniforms, philox
from services.tts_lm.model.sampling import Filter, RowSampling, draw, penalise
from tests.tts_lm.stored import load_store

# Known answers of Random123 1.09 (kat_vectors, philox4x32 10): counter, key, result.
KNOWN = [
    ([0] * 4, [0] * 2, [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]),
    ([0xFFFFFFFF] * 4, [0xFFFFFFFF] * 2, [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]),
    (
        [0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344],
        [0xA4093822, 0x299F31D0],
        [0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1],
    ),
]


@pytest.mark.parametrize(("counter", "key", "expected"), KNOWN)
def test_philox_gives_the_published_answers(counter: list[int], key: list[int], expected: list[int]) -> None:
    words = philox(tuple(torch.tensor([c]) for c in counter), tuple(torch.tensor([k]) for k in key))
    assert [int(word) for word in words] == expected


def test_uniforms_follow_from_seed_frame_and_codebook_alone() -> None:
    """Against Philox written out in Python integers, which cannot overflow."""
    seed, frames = 0xFEDCBA9876543210, [0, 1, 77, 8191]
    low, high = torch.full((4,), seed & 0xFFFFFFFF), torch.full((4,), seed >> 32)

    together = frame_uniforms(low, high, torch.tensor(frames), 16)

    for row, frame in enumerate(frames):
        for codebook in range(16):
            a, b, _, _ = python_philox([frame, codebook, 0, 0], [seed & 0xFFFFFFFF, seed >> 32])
            assert float(together[row, codebook]) == ((a << 32 | b) >> 12) / 2**52


def python_philox(counter: list[int], key: list[int]) -> list[int]:
    a, b, c, d = counter
    k, m = key
    for _ in range(10):
        p, q = 0xD2511F53 * a, 0xCD9E8D57 * c
        a, b, c, d = (q >> 32) ^ b ^ k, q & 0xFFFFFFFF, (p >> 32) ^ d ^ m, p & 0xFFFFFFFF
        k, m = (k + 0x9E3779B9) & 0xFFFFFFFF, (m + 0xBB67AE85) & 0xFFFFFFFF
    return [a, b, c, d]


def test_uniforms_are_spread_evenly() -> None:
    frames = torch.arange(4096)
    values = frame_uniforms(torch.zeros_like(frames), torch.zeros_like(frames) + 5, frames, 16).flatten().sort().values
    even = (torch.arange(len(values)) + 0.5) / len(values)
    assert float((values - even).abs().max()) < 1.6 / len(values) ** 0.5  # Kolmogorov-Smirnov, about 1 in 10 000


def rows(count: int, temperature: float, top_k: int, top_p: float, greedy: bool = False) -> RowSampling:
    return RowSampling(
        torch.full((count,), greedy),
        torch.full((count,), temperature),
        torch.full((count,), top_k),
        torch.full((count,), top_p),
    )


def processed(store: dict[str, np.ndarray], row: int) -> torch.Tensor:
    """The logits of one stored setting after penalty and suppression, in our order and code."""
    logits = torch.tensor(store["logits"][row : row + 1])
    length = int(store["lengths"][row])
    seen = torch.zeros_like(logits, dtype=torch.bool)
    seen[0, torch.tensor(store["history"][row, :length].astype(np.int64))] = True
    logits = penalise(logits, seen, torch.tensor([float(store["settings"][row, 3])]))
    logits[:, 64:166] = logits[:, 167:] = float("-inf")
    if length < 2:
        logits[:, 166] = float("-inf")
    return logits


@pytest.mark.parametrize("shared", [True, False])
def test_draws_invert_the_distribution_of_the_reference(shared: bool) -> None:
    """The stored probabilities are those of the reference's own processors on logits full of ties."""
    store = load_store("processors")
    grid = torch.linspace(0, 1, 513, dtype=torch.float64)[:-1]
    for row, (temperature, top_k, top_p, _) in enumerate(store["settings"]):
        logits = processed(store, row).expand(len(grid), -1)
        batch = Filter(False, False, int(top_k) if shared else None, bool(top_p < 1))

        drawn = draw(logits, grid, rows(len(grid), float(temperature), int(top_k), float(top_p)), batch).numpy()

        cumulative = np.cumsum(store["probabilities"][row].astype(np.float64))
        expected = np.searchsorted(cumulative / cumulative[-1], grid.numpy(), side="right")
        assert np.all(store["probabilities"][row][drawn] > 0)
        # float32 in the reference's softmax moves a boundary by a few 1e-8: at most one grid point can sit that close.
        assert np.mean(drawn != expected) <= 1 / 256, row


def test_the_extreme_draws_are_possible_ids() -> None:
    store = load_store("processors")
    for uniform in (0.0, 1 - 2.0**-52):
        for row, (temperature, top_k, top_p, _) in enumerate(store["settings"]):
            settings = rows(1, float(temperature), int(top_k), float(top_p))
            batch = Filter(False, False, int(top_k), bool(top_p < 1))
            drawn = draw(processed(store, row), torch.tensor([uniform], dtype=torch.float64), settings, batch)
            assert store["probabilities"][row, int(drawn)] > 0


def test_greedy_takes_the_first_of_equals() -> None:
    logits = torch.tensor([[1.0, 3.0, 3.0, 2.0]])
    uniform = torch.tensor([0.9], dtype=torch.float64)
    assert int(draw(logits, uniform, rows(1, 0.9, 2, 1.0, greedy=True), Filter(True, True, 2, False))) == 1
    assert int(draw(logits, uniform, rows(1, 0.9, 2, 1.0, greedy=True), Filter(False, True, 2, False))) == 1


def test_rows_with_different_filters_do_not_change_one_another() -> None:
    store = load_store("processors")
    logits = torch.cat([processed(store, row) for row in range(12)])
    uniform = torch.linspace(0.05, 0.95, 12, dtype=torch.float64)
    settings = RowSampling(
        torch.zeros(12, dtype=torch.bool),
        torch.linspace(0.5, 1.5, 12),
        torch.tensor([0, 1, 5, 50] * 3),
        torch.tensor([1.0, 0.8, 0.3] * 4),
    )
    together = draw(logits, uniform, settings, Filter(False, False, None, True))
    for row in range(12):
        alone = rows(1, float(settings.temperature[row]), int(settings.top_k[row]), float(settings.top_p[row]))
        batch = Filter(False, False, int(settings.top_k[row]), bool(settings.top_p[row] < 1))
        assert int(draw(logits[row : row + 1], uniform[row : row + 1], alone, batch)) == int(together[row])
