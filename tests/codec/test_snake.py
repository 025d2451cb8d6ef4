"""The fused snake against the same mathematics in torch: interpreted where there is no GPU, compiled where there is."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from services.codec.model.config import CodecConfig
from services.codec.model.decoder import Decoder, FusedSnake
from services.codec.model.weights import load_decoder

ROOT = Path(__file__).parents[2]
CUDA = torch.cuda.is_available()
DEVICES = [
    pytest.param("cpu", marks=pytest.mark.skipif(CUDA, reason="where a GPU is, Triton compiles for it")),
    pytest.param("cuda", marks=pytest.mark.gpu),
]
TOLERANCE = {torch.float32: 5e-6, torch.float16: 2e-3, torch.bfloat16: 2e-2}


@pytest.fixture(scope="module")
def fused() -> FusedSnake:
    pytest.importorskip("triton")
    if not CUDA:
        os.environ["TRITON_INTERPRET"] = "1"
    from services.codec.model.fused import snake

    return snake


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize(("rows", "length", "channels", "columns"), [(1, 8, 96, 6), (3, 5, 40, 54), (2, 7, 33, 0)])
def test_it_is_the_snake_behind_its_past(
    fused: FusedSnake, device: str, dtype: torch.dtype, rows: int, length: int, channels: int, columns: int
) -> None:
    draw = torch.Generator().manual_seed(rows)
    x, alpha, beta = (
        torch.randn(*shape, generator=draw) for shape in ((rows, length, channels), [channels], [channels])
    )
    tails = torch.randn(rows, 3 + columns * channels, generator=draw)
    x, alpha, beta, tails = (t.to(device, dtype) for t in (4 * x, alpha.exp(), (-beta).exp(), tails))
    past = tails[:, 3:].view(rows, columns, channels)
    kept = torch.full_like(tails, float("nan"))[:, 3:].view(rows, columns, channels)

    out = fused(x, alpha, beta, past, kept)

    wide = x.double()
    expected = torch.cat([past.double(), wide + (wide * alpha.double()).sin() ** 2 * beta.double()], 1)
    error = (out.double() - expected).abs() / expected.abs().clamp(min=1.0)
    assert error.max() <= TOLERANCE[dtype]
    assert torch.equal(out[:, :columns], past)
    assert torch.equal(kept, out[:, length:])


@pytest.mark.parametrize("device", DEVICES)
def test_a_decoder_sounds_the_same_with_it(fused: FusedSnake, device: str, tiny: Path) -> None:
    def decoder(kernel: FusedSnake | None) -> Decoder:
        return load_decoder(CodecConfig.read(tiny), device=torch.device(device), dtype=torch.float32, fused=kernel)

    codes = torch.randint(64, (2, 7, 16), generator=torch.Generator().manual_seed(1), device="cpu").to(device)
    rows, fresh = torch.tensor([0, 1], device=device), torch.tensor([True, True], device=device)
    heard = []
    for kernel in (None, fused):
        made = decoder(kernel)
        state = made.new_state(2, 4)
        packets = [(0, 1), (1, 3), (3, 7)]
        heard.append(torch.cat([made(codes[:, a:b], state, rows, fresh & (a == 0)) for a, b in packets], 1))
    assert heard[0].abs().max() > 0.05
    assert (heard[0] - heard[1]).abs().max() <= 1e-5


AHEAD_OF_TIME = """
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from services.codec.model.fused import _snake
floats = dict.fromkeys(("x", "alpha", "inverse_beta", "past", "out", "kept"), "*fp32")
sizes = dict.fromkeys(("length", "channels", "columns", "past_stride", "kept_stride"), "i32")
source = ASTSource(_snake, signature=floats | sizes | {"BLOCK": "constexpr"}, constexprs={"BLOCK": 1024})
print(triton.compile(source, target=GPUTarget("cuda", 90, 32)).asm["ptx"])
"""


@pytest.mark.timeout(120)
def test_it_compiles_for_an_h200_with_an_exact_sine() -> None:
    """Ahead of time, in a process that does not interpret; the fast sine of the hardware is off by 1e-3 at αx = 100."""
    pytest.importorskip("triton")
    told = os.environ | {"TRITON_INTERPRET": "0", "TRITON_DEFAULT_FP_FUSION": "1"}
    command = [sys.executable, "-c", AHEAD_OF_TIME]
    done = subprocess.run(command, cwd=ROOT, env=told, capture_output=True, text=True, timeout=110, check=True)
    assert ".target sm_90" in done.stdout
    assert "sin.approx" not in done.stdout
