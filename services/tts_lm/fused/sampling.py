"""From logits to a code in one kernel a codebook: what `model/sampling.py` says, a row a program.

The k-th largest score is found bit by bit on its order-preserving integer, so nothing is sorted and ties are kept; the
same search over probabilities finds the nucleus. The chosen code goes to the frame, to the slot's state and, as the
row that the next pass reads, to the predictor: nothing of torch stands between two passes.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

GREEDY = tl.constexpr(0)
TEMPERATURE = tl.constexpr(1)
TOP_K = tl.constexpr(2)
TOP_P = tl.constexpr(3)
PARAMETERS = 4
"""Of one stage; `settings` [S, 9] holds those of the talker, those of the predictor, then the repetition penalty."""
PENALTY = tl.constexpr(8)
SETTINGS = 9
TINY_SHARE = tl.constexpr(2.220446049250313e-16)  # 2⁻⁵²


@triton.jit(do_not_specialize_on_alignment=["slot_ptr", "frame_ptr"])
def uniform_kernel(seed_ptr, slot_ptr, frame_ptr, out_ptr, Q: tl.constexpr, BLOCK: tl.constexpr):
    """`randomness.frame_uniforms`: Philox4x32-10 keyed by the slot's seed, counter (frame, codebook, 0, 0)."""
    row, codebook = tl.program_id(0), tl.arange(0, BLOCK)
    seed = tl.load(seed_ptr + tl.load(slot_ptr + row))
    mask: tl.constexpr = 0xFFFFFFFF
    k0 = (seed & mask).to(tl.uint64)
    k1 = ((seed >> 32) & mask).to(tl.uint64)
    zero = codebook.to(tl.uint64) * 0
    c0 = tl.load(frame_ptr + row).to(tl.uint64) + zero
    c1 = codebook.to(tl.uint64)
    c2 = zero
    c3 = zero
    for _ in tl.static_range(10):
        p0 = c0 * 0xD2511F53
        p1 = c2 * 0xCD9E8D57
        c0 = (p1 >> 32) ^ c1 ^ k0
        c1 = p1 & mask
        c2 = (p0 >> 32) ^ c3 ^ k1
        c3 = p0 & mask
        k0 = (k0 + 0x9E3779B9) & mask
        k1 = (k1 + 0xBB67AE85) & mask
    value = (c0 << 20) + (c1 >> 12)
    tl.store(out_ptr + row * Q + codebook, value.to(tl.float64) * TINY_SHARE, mask=codebook < Q)


@triton.jit
def _orderable(scores):
    """float32 → int64 in [0, 2³²) of the same order; both zeros are one."""
    bits = tl.where(scores == 0.0, 0.0, scores).to(tl.int32, bitcast=True).to(tl.int64)
    return tl.where(bits < 0, -1 - bits, bits + 2147483648)


@triton.jit(
    do_not_specialize=["first_setting", "codebook", "table_offset", "eos", "code_count"],
    do_not_specialize_on_alignment=["slot_ptr", "masked_ptr"],
)
def sample_kernel(
    logits_ptr,
    uniform_ptr,
    settings_ptr,
    slot_ptr,
    masked_ptr,
    seen_ptr,
    suppressed_ptr,
    out_ptr,
    state_ptr,
    table_ptr,
    next_ptr,
    first_setting,
    codebook,
    table_offset,
    eos,
    code_count,
    SIZE: tl.constexpr,
    BLOCK: tl.constexpr,
    Q: tl.constexpr,
    IS_TALKER: tl.constexpr,
    HAS_NEXT: tl.constexpr,
    NEXT: tl.constexpr,
    NEXT_BLOCK: tl.constexpr,
):
    """logits [R, SIZE] float32 → the code of one codebook."""
    row, ids = tl.program_id(0), tl.arange(0, BLOCK)
    inside = ids < SIZE
    slot = tl.load(slot_ptr + row)
    settings = settings_ptr + slot * 9 + first_setting
    logits = tl.load(logits_ptr + row * SIZE + ids, mask=inside, other=float("-inf"))
    if IS_TALKER:
        penalty = tl.load(settings_ptr + slot * 9 + PENALTY)
        seen = tl.load(seen_ptr + slot * SIZE + ids, mask=inside, other=0) != 0
        logits = tl.where(seen, tl.where(logits < 0, logits * penalty, logits / penalty), logits)
        forbidden = tl.load(suppressed_ptr + ids, mask=inside, other=1) != 0
        forbidden = forbidden | ((ids == eos) & (tl.load(masked_ptr + row) != 0))
        logits = tl.where(forbidden, float("-inf"), logits)
    best = tl.argmax(logits, 0)
    code = best
    if tl.load(settings + GREEDY) == 0:
        scores = logits / tl.load(settings + TEMPERATURE)
        keys = tl.where(inside, _orderable(scores), -1)
        keep = inside
        top_k = tl.load(settings + TOP_K).to(tl.int32)
        if (top_k > 0) & (top_k < SIZE):
            threshold = tl.zeros([1], tl.int64)
            for step in range(32):
                candidate = threshold + (tl.full([1], 1, tl.int64) << (31 - step))
                enough = tl.sum((keys >= candidate).to(tl.int32), 0) >= top_k
                threshold = tl.where(enough, candidate, threshold)
            keep = keep & (keys >= threshold)
        top = tl.max(tl.where(keep, scores, float("-inf")), 0)
        weights = tl.where(keep, tl.exp((scores - top).to(tl.float64)), 0.0)
        top_p = tl.load(settings + TOP_P)
        if top_p < 1:
            limit = (1.0 - top_p).to(tl.float64) * tl.sum(weights, 0)
            edge = tl.zeros([1], tl.int64)
            for step in range(32):
                candidate = edge + (tl.full([1], 1, tl.int64) << (31 - step))
                below = tl.sum(tl.where(keys < candidate, weights, 0.0), 0)
                edge = tl.where(below <= limit, candidate, edge)
            # Of equal scores the lower ids go first, as in a stable ascending sort; the last of all always stays.
            tied = keep & (keys == edge)
            shed = tl.sum(tl.where(keys < edge, weights, 0.0), 0) + tl.cumsum(tl.where(tied, weights, 0.0), 0)
            final = tl.max(tl.where(keep & (scores == top), ids, -1), 0)
            keep = keep & ((keys > edge) | (tied & (shed > limit)) | (ids == final))
            weights = tl.where(keep, weights, 0.0)
        heaped = tl.cumsum(weights, 0)
        target = tl.load(uniform_ptr + row * Q + codebook) * tl.max(heaped, 0)
        drawn = tl.min(tl.where(keep & (heaped > target), ids, BLOCK), 0)
        code = tl.where(drawn < BLOCK, drawn, tl.max(tl.where(keep, ids, 0), 0))
    tl.store(out_ptr + row * Q + codebook, code.to(tl.int64))
    tl.store(state_ptr + slot * Q + codebook, code.to(tl.int64))
    if IS_TALKER:
        tl.store(seen_ptr + slot * SIZE + code, 1)
    if HAS_NEXT:
        # A row that just ended has a control id here; its predictor runs on code 0 and nobody looks.
        heard = tl.where(code < code_count, code, 0)
        places = tl.arange(0, NEXT_BLOCK)
        held = places < NEXT
        values = tl.load(table_ptr + (table_offset + heard).to(tl.int64) * NEXT + places, mask=held, other=0.0)
        tl.store(next_ptr + row * NEXT + places, values.to(next_ptr.dtype.element_ty), mask=held)


def frame_uniforms(seeds: Tensor, slots: Tensor, frames: Tensor, codebook_count: int) -> Tensor:
    """seeds [S] int64 by slot, slots and frames [R] → [R, Q] float64."""
    out = torch.empty(slots.shape[0], codebook_count, dtype=torch.float64, device=seeds.device)
    uniform_kernel[(slots.shape[0],)](
        seeds,
        slots,
        frames,
        out,
        Q=codebook_count,
        BLOCK=triton.next_power_of_2(codebook_count),
        num_warps=1,
    )
    return out


def sample(
    logits: Tensor,
    uniforms: Tensor,
    settings: Tensor,
    slots: Tensor,
    codes: Tensor,
    state: Tensor,
    codebook: int,
    *,
    table: Tensor | None,
    table_offset: int,
    code_count: int,
    masked: Tensor | None = None,
    seen: Tensor | None = None,
    suppressed: Tensor | None = None,
    eos: int = -1,
) -> Tensor | None:
    """Draw codebook `codebook` of every row: logits [R, V] float32, uniforms [R, Q], settings [S, 9] by slot; written
    into codes [R, Q] and state [S, Q]. The talker's codebook gives `masked` [R], `seen` [S, V] and `suppressed` [V].
    With `table`, the rows of the next pass [R, W] float32: what each code is to it."""
    rows, size = logits.shape
    is_talker = seen is not None
    width = 1 if table is None else table.shape[1]
    following = None if table is None else torch.empty(rows, width, dtype=torch.float32, device=logits.device)
    sample_kernel[(rows,)](
        logits,
        uniforms,
        settings,
        slots,
        slots if masked is None else masked,
        logits if seen is None else seen.view(torch.uint8),
        logits if suppressed is None else suppressed.view(torch.uint8),
        codes,
        state,
        logits if table is None else table,
        logits if following is None else following,
        0 if is_talker else PARAMETERS,
        codebook,
        table_offset,
        eos,
        code_count,
        SIZE=size,
        BLOCK=triton.next_power_of_2(size),
        Q=codes.shape[1],
        IS_TALKER=is_talker,
        HAS_NEXT=table is not None,
        NEXT=width,
        NEXT_BLOCK=triton.next_power_of_2(width),
        num_warps=4,
    )
    return following
