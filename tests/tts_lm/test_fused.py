"""The Triton kernels = torch's arithmetic: interpreted on a CPU, compiled on a GPU, the same tests."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from services.tts_lm.model.config import BlockConfig
from services.tts_lm.model.layers import Rotary, rms_norm, rotary_angles
from services.tts_lm.model.randomness import frame_uniforms
from services.tts_lm.model.sampling import Filter, RowSampling, draw, penalise

pytest.importorskip("triton", reason="the kernels need Triton (pip install '.[dev]')")
from services.tts_lm.fused import attention, product, sampling

WORD = 0xFFFFFFFF
BLOCK = BlockConfig(64, 96, 1, 6, 2, 16, 10000.0, 1e-6, 1024)
PAGE = 16


@pytest.fixture(
    params=[
        "cpu",
        pytest.param("cuda", marks=pytest.mark.gpu),
    ]
)
def device(request: pytest.FixtureRequest) -> torch.device:
    if request.param == "cpu" and not os.environ.get("TRITON_INTERPRET"):
        pytest.skip("this process compiles its kernels: the GPU's tests run, the interpreter's cannot")
    torch.manual_seed(0)
    return torch.device(request.param)


# Products


@pytest.mark.parametrize("rows", [1, 3, 16, 19])
@pytest.mark.parametrize("wide", [True, False])
def test_a_product_with_all_that_stands_round_it_is_torchs(device: torch.device, rows: int, wide: bool) -> None:
    # The interpreter multiplies bfloat16 as the integers that NumPy holds it in (Triton 3.7), so there it is float16.
    dtype = torch.float32 if wide else torch.bfloat16 if device.type == "cuda" else torch.float16
    x, residual = torch.randn(rows, 200, device=device), torch.randn(rows, 40, device=device)
    norm, bias = (torch.rand(size, device=device).to(dtype) + 0.5 for size in (200, 40))
    weight = torch.randn(80, 200, device=device).to(dtype)
    normed = rms_norm(x.double().float(), norm.float(), 1e-6).double()
    exact = {
        "plain": x.double() @ weight[:40].double().T + bias.double(),
        "added": residual.double() + x.double() @ weight[:40].double().T,
        "normed": normed @ weight.double().T,
        "gated": F.silu(normed @ weight[:40].double().T) * (normed @ weight[40:].double().T),
    }
    found = {
        "plain": product.product(x, weight[:40], torch.float32, bias=bias),
        "added": product.product(x, weight[:40], torch.float32, residual=residual),
        "normed": product.product(x, weight, torch.float32, norm=norm, eps=1e-6),
        "gated": product.product(x, weight, torch.float32, norm=norm, eps=1e-6, gated=True),
    }
    for name, right in exact.items():
        error = (found[name].double() - right).abs().max() / right.std()
        assert error < (3e-6 if wide else 2e-2), name  # narrow: x is rounded before the product, the sum is not


def test_a_rows_product_has_the_same_bits_alone_and_in_any_company(device: torch.device) -> None:
    x = torch.randn(37, 300, device=device)
    norm, weight = torch.rand(300, device=device), torch.randn(48, 300, device=device)
    together = product.product(x, weight, torch.float32, norm=norm, eps=1e-6)
    for row in (0, 7, 15, 16, 36):
        alone = product.product(x[row : row + 1].clone(), weight, torch.float32, norm=norm, eps=1e-6)
        assert torch.equal(alone[0], together[row])


def test_a_norm_is_torchs(device: torch.device) -> None:
    x, weight = torch.randn(3, 72, device=device), torch.rand(72, device=device)
    found = product.rms_norm(x, weight, 1e-6, torch.float32)
    assert torch.allclose(found, rms_norm(x, weight, 1e-6), atol=1e-6)


# Attention


class Paged:
    """Sequences of some lengths in scattered pages of a pool that holds NaN wherever nobody has written; row r is the
    last position of sequence r."""

    def __init__(self, lengths: list[int], device: torch.device, dtype: torch.dtype = torch.float32) -> None:
        self.lengths, self.device = lengths, device
        pages = [-(-length // PAGE) for length in lengths]
        numbers = torch.randperm(sum(pages) + 3, device=device)
        self.memory = torch.full((2, (sum(pages) + 3) * PAGE, 2, 16), float("nan"), device=device, dtype=dtype)
        self.table = torch.zeros(len(lengths), max(pages) + 2, dtype=torch.int64, device=device)
        self.past = []
        for row, (length, count) in enumerate(zip(lengths, pages, strict=True)):
            own, numbers = numbers[:count], numbers[count:]
            self.table[row, :count] = own
            where = (own[:, None] * PAGE + torch.arange(PAGE, device=device)).flatten()[:length]
            kept = torch.randn(2, length, 2, 16, device=device, dtype=dtype)
            self.memory[:, where[:-1]] = kept[:, :-1]
            self.past.append((where, kept))
        self.positions = torch.tensor(lengths, device=device) - 1
        self.targets = torch.stack([where[-1] for where, _ in self.past])
        self.qkv = torch.randn(len(lengths), 10, 16, device=device, dtype=dtype)
        self.norm = torch.rand(8, 16, device=device, dtype=dtype) + 0.5

    def attend(self, rows: slice = slice(None), columns: int | None = None, *, alone: bool = True) -> Tensor:
        angle = rotary_angles(BLOCK, 1024).to(self.device)
        return attention.attend(
            self.qkv[rows].contiguous(),
            self.norm,
            angle.cos(),
            angle.sin(),
            1e-6,
            self.memory,
            self.positions[rows].contiguous(),
            self.targets[rows].contiguous(),
            self.table[rows, :columns].contiguous(),
            PAGE,
            alone=alone,
        )

    def expected(self) -> tuple[Tensor, Tensor]:
        """By torch, a row at a time: what each row gets, and its rotated key."""
        rotary, rows, keys = Rotary(BLOCK, 1024, torch.float32, self.device), [], []
        for row, (_, kept) in enumerate(self.past):
            qk = rms_norm(self.qkv[row : row + 1, :8].float(), self.norm.float(), 1e-6)
            qk = rotary.apply(qk, *rotary.at(self.positions[row : row + 1]))
            keys.append(qk[0, 6:])
            k, v = (part.float().clone() for part in kept)
            k[-1], v[-1] = qk[0, 6:].to(kept.dtype).float(), self.qkv[row, 8:].float()
            grouped = qk[:, :6].view(1, 2, 3, 16)
            out = F.scaled_dot_product_attention(grouped, k.transpose(0, 1)[None], v.transpose(0, 1)[None])
            rows.append(out.reshape(-1))
        return torch.stack(rows), torch.stack(keys)


@pytest.mark.parametrize("lengths", [[1, 16, 17, 40], [1, 255, 256, 257, 600]])
@pytest.mark.parametrize("alone", [True, False])
def test_attention_reads_its_own_pages_to_its_own_length(device: torch.device, lengths: list[int], alone: bool) -> None:
    """What lies behind a row's length is NaN: whoever read it would show."""
    paged = Paged(lengths, device)
    found = paged.attend(alone=alone)
    expected, keys = paged.expected()
    assert torch.allclose(found, expected, atol=2e-6, rtol=2e-5)
    assert torch.allclose(paged.memory[0, paged.targets], keys, atol=1e-5)
    assert torch.equal(paged.memory[1, paged.targets], paged.qkv[:, 8:])


def test_attention_in_bfloat16_is_as_near_as_its_output_can_be(device: torch.device) -> None:
    paged = Paged([3, 70], device, torch.bfloat16)
    found, expected = paged.attend().float(), paged.expected()[0]
    ulp = 2**-8 if device.type == "cuda" else 2**-7  # the interpreter rounds towards zero
    assert (found - expected).abs().max() <= expected.abs().max() * ulp


def test_a_rows_attention_has_the_same_bits_in_every_bucket_and_company(device: torch.device) -> None:
    paged = Paged([200, 300, 9], device)
    together = paged.attend()
    alone = paged.attend(slice(0, 1), columns=16)
    short = paged.attend(slice(2, 3), columns=1)
    assert torch.equal(alone[0], together[0])
    assert torch.equal(short[0], together[2])


# Sampling


class Rows:
    """Logits of some rows, and how their slots are sampled."""

    def __init__(self, device: torch.device, size: int, settings: list[list[float]]) -> None:
        count = len(settings)
        self.size, self.count, self.device = size, count, device
        # A grid of halves: many equal scores, so that ties are met.
        self.logits = (torch.randn(count, size, device=device) * 3).mul(2).round().div(2)
        self.uniforms = torch.rand(count, 4, device=device, dtype=torch.float64)
        self.slots = torch.arange(count, device=device).flip(0)
        self.settings = torch.zeros(count, 9, device=device)
        values = torch.tensor(settings, device=device)
        self.settings[self.slots, 0:4] = self.settings[self.slots, 4:8] = values
        self.settings[:, 8] = 1.5
        self.state = torch.full((count, 4), -1, device=device)
        self.codes = torch.empty(count, 4, dtype=torch.int64, device=device)
        self.rows = RowSampling(values[:, 0] > 0, values[:, 1], values[:, 2].long(), values[:, 3])


SETTINGS = [
    [1.0, 1.0, 0, 1.0],
    [0.0, 0.9, 50, 1.0],
    [0.0, 0.7, 7, 1.0],
    [0.0, 1.3, 0, 1.0],
    [0.0, 0.9, 1, 1.0],
    [0.0, 1.0, 20, 0.7],
    [0.0, 1.0, 0, 0.9],
    [0.0, 1.0, 30, 0.01],
]
ANY = Filter(all_greedy=False, any_greedy=True, top_k=None, top_p=True)


@pytest.mark.parametrize("size", [64, 100])
def test_codes_are_drawn_as_torch_draws_them(device: torch.device, size: int) -> None:
    rows = Rows(device, size, SETTINGS)
    for _ in range(4):
        rows.uniforms = torch.rand(rows.count, 4, device=device, dtype=torch.float64)
        sampling.sample(
            rows.logits, rows.uniforms, rows.settings, rows.slots, rows.codes, rows.state, 2,
            table=None, table_offset=0, code_count=size,
        )  # fmt: skip
        expected = draw(rows.logits, rows.uniforms[:, 2], rows.rows, ANY)
        assert rows.codes[:, 2].tolist() == expected.tolist()
        assert rows.state[rows.slots, 2].tolist() == expected.tolist()


def test_code_0_is_penalised_masked_and_remembered(device: torch.device) -> None:
    rows = Rows(device, 100, [*SETTINGS, [1.0, 1.0, 0, 1.0]])
    seen = torch.rand(rows.count, 100, device=device) < 0.3
    suppressed = torch.arange(100, device=device) > 80
    eos, masked = 70, torch.tensor([1, 0] * 4 + [1], device=device)
    rows.logits[:, eos] = 50.0
    table = torch.randn(2 * 100, 24, device=device)
    before, logits = seen.clone(), penalise(rows.logits, seen[rows.slots], rows.settings[rows.slots, 8])
    logits = logits.masked_fill(suppressed, float("-inf"))
    logits[masked > 0, eos] = float("-inf")
    following = sampling.sample(
        rows.logits, rows.uniforms, rows.settings, rows.slots, rows.codes, rows.state, 0,
        table=table, table_offset=100, code_count=60, masked=masked, seen=seen, suppressed=suppressed, eos=eos,
    )  # fmt: skip
    expected = draw(logits, rows.uniforms[:, 0], rows.rows, ANY)
    assert rows.codes[:, 0].tolist() == expected.tolist()
    assert (expected[masked == 0] == eos).all()
    before[rows.slots, expected] = True
    assert torch.equal(seen, before)
    assert following is not None
    assert torch.equal(following, table[100 + expected.where(expected < 60, 0)])


def test_draws_are_the_philox_of_torch_bit_by_bit(device: torch.device) -> None:
    seeds = torch.tensor([5, -7, 2**62 + 3, -(2**63)], device=device)
    slots, frames = torch.tensor([2, 0, 3, 1], device=device), torch.tensor([0, 1, 77, 2**31 + 5], device=device)
    own = seeds[slots]
    expected = frame_uniforms(own & WORD, own >> 32 & WORD, frames, 16)
    assert torch.equal(sampling.frame_uniforms(seeds, slots, frames, 16), expected)


# Compiling


@pytest.mark.timeout(300)
def test_every_kernel_compiles_for_an_h200(tmp_path: Path) -> None:
    """Ahead of time, at the real dimensions: what types and shapes the interpreter lets pass does not get through."""
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"} | {"TRITON_CACHE_DIR": str(tmp_path)}
    command = [sys.executable, "-m", "tests.ahead_of_time", "tests.tts_lm.fused_kernels"]
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr[-2000:]
    lines = ran.stdout.splitlines()
    assert len(lines) == 13
    assert all(line.endswith(" tensor cores") for line in lines if line.startswith("product_kernel"))
    assert all(int(line.split()[1]) <= 100 << 10 for line in lines)
