"""Counter-based randomness: the draw for (seed, frame, codebook) is a function of these three and of nothing else.

Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011) in integer tensor operations,
equal on CPU and GPU. Tested against the published known answers of Random123 and against NumPy's Philox family.
"""

from __future__ import annotations

import torch
from torch import Tensor

_MASK = 0xFFFFFFFF
_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_WEYL = (0x9E3779B9, 0xBB67AE85)
_ROUNDS = 10


def philox(counter: tuple[Tensor, Tensor, Tensor, Tensor], key: tuple[Tensor, Tensor]) -> tuple[Tensor, ...]:
    """Four 32-bit words in, four out, elementwise; all tensors int64 holding values below 2³²."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(_ROUNDS):
        # A product of two 32-bit words wraps into int64's sign; shifting and masking reads both halves off it
        # unchanged.
        p0, p1 = c0 * _MULTIPLIERS[0], c2 * _MULTIPLIERS[1]
        c0, c1, c2, c3 = (p1 >> 32 & _MASK) ^ c1 ^ k0, p1 & _MASK, (p0 >> 32 & _MASK) ^ c3 ^ k1, p0 & _MASK
        k0, k1 = k0 + _WEYL[0] & _MASK, k1 + _WEYL[1] & _MASK
    return c0, c1, c2, c3


def frame_uniforms(seed_low: Tensor, seed_high: Tensor, frame: Tensor, codebook_count: int) -> Tensor:
    """Uniforms in [0, 1) for one frame: [S] int64 each → [S, Q] float64, multiples of 2⁻⁵².

    Key = the 64-bit seed, counter = (frame, codebook, 0, 0).
    """
    codebook = torch.arange(codebook_count, device=frame.device)
    zero = torch.zeros_like(codebook)
    words = philox((frame[:, None] + zero, codebook + torch.zeros_like(frame)[:, None], zero, zero),
                   (seed_low[:, None], seed_high[:, None]))  # fmt: skip
    # 52 bits, not 53: u · total then always rounds below total, which inverting a distribution relies on.
    return ((words[0] << 20) + (words[1] >> 12)).double() * 2.0**-52
