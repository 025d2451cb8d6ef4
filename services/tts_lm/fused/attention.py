"""Attention over pages: each row reads exactly the positions it has, whatever the longest of the batch has.

A program owns one row, one key head and one stretch of pages. It norms and rotates the row's queries (float32 from
the product to the softmax), walks through the pages and folds each block into a running softmax. Where a row is alone
in its sequence, the same program also makes the row's own key, so that one kernel does what stands between two
products; rows of a prompt, which see one another, put their keys into the pool first.

    stretch   |0 … 255|256 … 511|512 …      always cut at the same positions: a row's bits depend on its own length,
    row       |■■■■■■■|■■■■□□□□□|□□□ …      not on how many stretches the batch was given
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

STRETCH = 256
"""Positions of one program: four pages. A longer row is read by several programs at once and put together after."""
_INTEGERS = ["position_ptr", "target_ptr", "table_ptr"]
"""Columns of a matrix, aligned or not by the number of rows: one kernel for both, and for every number of stretches, so
that few have to be compiled before the first start is ready."""
NOTHING = tl.constexpr(-1e30)
"""The largest score of an empty stretch: far below any score, and finite, so that no difference is NaN."""


@triton.jit
def _normed_rotated(lo, hi, norm_lo, norm_hi, cos, sin, eps, WIDTH: tl.constexpr):
    """Rows [N, WIDTH / 2] of first and second halves → the same, normed and rotated."""
    scale = 1.0 / tl.sqrt((tl.sum(lo * lo, 1) + tl.sum(hi * hi, 1)) / WIDTH + eps)
    lo, hi = lo * scale[:, None] * norm_lo, hi * scale[:, None] * norm_hi
    return lo * cos - hi * sin, hi * cos + lo * sin


@triton.jit(do_not_specialize_on_alignment=_INTEGERS)
def keep_kernel(
    qkv_ptr,
    norm_ptr,
    cos_ptr,
    sin_ptr,
    position_ptr,
    target_ptr,
    key_ptr,
    value_ptr,
    eps,
    HEADS: tl.constexpr,
    KV_HEADS: tl.constexpr,
    WIDTH: tl.constexpr,
    HALF: tl.constexpr,
):
    """The key and value of one row and key head into the pool."""
    row, head = tl.program_id(0), tl.program_id(1)
    half = tl.arange(0, HALF)[None, :]
    inside = half < WIDTH // 2
    position, target = tl.load(position_ptr + row), tl.load(target_ptr + row)
    cos = tl.load(cos_ptr + position * (WIDTH // 2) + half, mask=inside, other=0.0)
    sin = tl.load(sin_ptr + position * (WIDTH // 2) + half, mask=inside, other=0.0)
    key = qkv_ptr + (row * (HEADS + 2 * KV_HEADS) + HEADS + head) * WIDTH
    norm = norm_ptr + (HEADS + head) * WIDTH
    lo, hi = _normed_rotated(
        tl.load(key + half, mask=inside, other=0.0).to(tl.float32),
        tl.load(key + WIDTH // 2 + half, mask=inside, other=0.0).to(tl.float32),
        tl.load(norm + half, mask=inside, other=0.0).to(tl.float32),
        tl.load(norm + WIDTH // 2 + half, mask=inside, other=0.0).to(tl.float32),
        cos,
        sin,
        eps,
        WIDTH,
    )
    to = (target * KV_HEADS + head) * WIDTH
    tl.store(key_ptr + to + half, lo.to(key_ptr.dtype.element_ty), mask=inside)
    tl.store(key_ptr + to + WIDTH // 2 + half, hi.to(key_ptr.dtype.element_ty), mask=inside)
    value = key + KV_HEADS * WIDTH
    for first in tl.static_range(0, WIDTH, WIDTH // 2):
        part = tl.load(value + first + half, mask=inside, other=0.0)
        tl.store(value_ptr + to + first + half, part.to(value_ptr.dtype.element_ty), mask=inside)


@triton.jit(do_not_specialize=["table_stride", "stretch_count"], do_not_specialize_on_alignment=_INTEGERS)
def attention_kernel(
    qkv_ptr,
    norm_ptr,
    cos_ptr,
    sin_ptr,
    position_ptr,
    target_ptr,
    table_ptr,
    table_stride,
    key_ptr,
    value_ptr,
    out_ptr,
    sums_ptr,
    peaks_ptr,
    totals_ptr,
    stretch_count,
    eps,
    scale,
    HEADS: tl.constexpr,
    KV_HEADS: tl.constexpr,
    WIDTH: tl.constexpr,
    HALF: tl.constexpr,
    GROUP: tl.constexpr,
    PAGE: tl.constexpr,
    BLOCK: tl.constexpr,
    STRETCH_PAGES: tl.constexpr,
    IS_ONE: tl.constexpr,
    ALONE: tl.constexpr,
):
    """One row, one key head, one stretch. GROUP is a power of two with room for the query heads of a key head."""
    row, head, stretch = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    each: tl.constexpr = HEADS // KV_HEADS
    group, half = tl.arange(0, GROUP), tl.arange(0, HALF)
    lower = half < WIDTH // 2
    wanted = (group < each)[:, None] & lower[None, :]
    position = tl.load(position_ptr + row)
    cos = tl.load(cos_ptr + position * (WIDTH // 2) + half, mask=lower, other=0.0)[None, :]
    sin = tl.load(sin_ptr + position * (WIDTH // 2) + half, mask=lower, other=0.0)[None, :]
    heads = head * each + group
    query = (row * (HEADS + 2 * KV_HEADS) + heads)[:, None] * WIDTH + half[None, :]
    norm = heads[:, None] * WIDTH + half[None, :]
    q_lo, q_hi = _normed_rotated(
        tl.load(qkv_ptr + query, mask=wanted, other=0.0).to(tl.float32),
        tl.load(qkv_ptr + query + WIDTH // 2, mask=wanted, other=0.0).to(tl.float32),
        tl.load(norm_ptr + norm, mask=wanted, other=0.0).to(tl.float32),
        tl.load(norm_ptr + norm + WIDTH // 2, mask=wanted, other=0.0).to(tl.float32),
        cos,
        sin,
        eps,
        WIDTH,
    )
    q_lo, q_hi = q_lo * scale, q_hi * scale

    peak = tl.full([GROUP], NOTHING, tl.float32)
    total = tl.zeros([GROUP], tl.float32)
    sum_lo = tl.zeros([GROUP, HALF], tl.float32)
    sum_hi = tl.zeros([GROUP, HALF], tl.float32)
    last_page = position // PAGE
    first_page = stretch * STRETCH_PAGES
    end_page = tl.minimum(first_page + STRETCH_PAGES, last_page + 1)
    cached = position if ALONE else position + 1
    for page in range(first_page, end_page):
        base = tl.load(table_ptr + row * table_stride + page) * PAGE
        for first in tl.static_range(0, PAGE, BLOCK):
            inner = first + tl.arange(0, BLOCK)
            there = (inner < PAGE) & (page * PAGE + inner < cached)
            at = ((base + inner) * KV_HEADS + head)[:, None] * WIDTH + half[None, :]
            readable = there[:, None] & lower[None, :]
            k_lo = tl.load(key_ptr + at, mask=readable, other=0.0).to(tl.float32)
            k_hi = tl.load(key_ptr + at + WIDTH // 2, mask=readable, other=0.0).to(tl.float32)
            v_lo = tl.load(value_ptr + at, mask=readable, other=0.0).to(tl.float32)
            v_hi = tl.load(value_ptr + at + WIDTH // 2, mask=readable, other=0.0).to(tl.float32)
            scores = tl.sum(q_lo[:, None, :] * k_lo[None, :, :] + q_hi[:, None, :] * k_hi[None, :, :], 2)
            scores = tl.where(there[None, :], scores, NOTHING)
            higher = tl.maximum(peak, tl.max(scores, 1))
            old = tl.exp(peak - higher)
            shares = tl.where(there[None, :], tl.exp(scores - higher[:, None]), 0.0)
            total = total * old + tl.sum(shares, 1)
            sum_lo = sum_lo * old[:, None] + tl.sum(shares[:, :, None] * v_lo[None, :, :], 1)
            sum_hi = sum_hi * old[:, None] + tl.sum(shares[:, :, None] * v_hi[None, :, :], 1)
            peak = higher

    if ALONE:  # noqa: SIM102 - known when it is compiled, the other one is not
        if (first_page <= last_page) & (last_page < first_page + STRETCH_PAGES):
            own = (row * (HEADS + 2 * KV_HEADS) + HEADS + head) * WIDTH + half[None, :]
            own_norm = (HEADS + head) * WIDTH + half[None, :]
            inside = lower[None, :]
            k_lo, k_hi = _normed_rotated(
                tl.load(qkv_ptr + own, mask=inside, other=0.0).to(tl.float32),
                tl.load(qkv_ptr + own + WIDTH // 2, mask=inside, other=0.0).to(tl.float32),
                tl.load(norm_ptr + own_norm, mask=inside, other=0.0).to(tl.float32),
                tl.load(norm_ptr + own_norm + WIDTH // 2, mask=inside, other=0.0).to(tl.float32),
                cos,
                sin,
                eps,
                WIDTH,
            )
            v_lo = tl.load(qkv_ptr + own + KV_HEADS * WIDTH, mask=inside, other=0.0).to(key_ptr.dtype.element_ty)
            v_hi = tl.load(qkv_ptr + own + KV_HEADS * WIDTH + WIDTH // 2, mask=inside, other=0.0).to(
                key_ptr.dtype.element_ty
            )
            # Rounded as later rows will read it, so that a key is the same to its own row and to theirs.
            k_lo, k_hi = k_lo.to(key_ptr.dtype.element_ty), k_hi.to(key_ptr.dtype.element_ty)
            to = (tl.load(target_ptr + row) * KV_HEADS + head) * WIDTH + half[None, :]
            tl.store(key_ptr + to, k_lo, mask=inside)
            tl.store(key_ptr + to + WIDTH // 2, k_hi, mask=inside)
            tl.store(value_ptr + to, v_lo, mask=inside)
            tl.store(value_ptr + to + WIDTH // 2, v_hi, mask=inside)
            score = tl.sum(q_lo * k_lo.to(tl.float32) + q_hi * k_hi.to(tl.float32), 1)
            higher = tl.maximum(peak, score)
            old, new = tl.exp(peak - higher), tl.exp(score - higher)
            total = total * old + new
            sum_lo = sum_lo * old[:, None] + new[:, None] * v_lo.to(tl.float32)
            sum_hi = sum_hi * old[:, None] + new[:, None] * v_hi.to(tl.float32)
            peak = higher

    if IS_ONE:
        out = (row * HEADS + heads)[:, None] * WIDTH + half[None, :]
        tl.store(out_ptr + out, (sum_lo / total[:, None]).to(out_ptr.dtype.element_ty), mask=wanted)
        tl.store(out_ptr + out + WIDTH // 2, (sum_hi / total[:, None]).to(out_ptr.dtype.element_ty), mask=wanted)
    else:
        part = (row * HEADS + heads) * stretch_count + stretch
        tl.store(peaks_ptr + part, peak, mask=group < each)
        tl.store(totals_ptr + part, total, mask=group < each)
        at = part[:, None] * WIDTH + half[None, :]
        tl.store(sums_ptr + at, sum_lo, mask=wanted)
        tl.store(sums_ptr + at + WIDTH // 2, sum_hi, mask=wanted)


@triton.jit(do_not_specialize=["stretch_count"], do_not_specialize_on_alignment=_INTEGERS)
def join_kernel(
    position_ptr,
    sums_ptr,
    peaks_ptr,
    totals_ptr,
    out_ptr,
    stretch_count,
    HEADS: tl.constexpr,
    WIDTH: tl.constexpr,
    BLOCK: tl.constexpr,
    STRETCH: tl.constexpr,
):
    """The stretches of one row and head, in order; those behind the row's length are not read."""
    row, head = tl.program_id(0), tl.program_id(1)
    places = tl.arange(0, BLOCK)
    inside = places < WIDTH
    base = (row * HEADS + head) * stretch_count
    count = tl.load(position_ptr + row) // STRETCH + 1
    peak = tl.load(peaks_ptr + base)
    for stretch in range(1, count):
        peak = tl.maximum(peak, tl.load(peaks_ptr + base + stretch))
    total = tl.zeros([1], tl.float32)
    sums = tl.zeros([BLOCK], tl.float32)
    for stretch in range(count):
        weight = tl.exp(tl.load(peaks_ptr + base + stretch) - peak)
        total += tl.load(totals_ptr + base + stretch) * weight
        sums += tl.load(sums_ptr + (base + stretch) * WIDTH + places, mask=inside, other=0.0) * weight
    out = (row * HEADS + head) * WIDTH + places
    tl.store(out_ptr + out, (sums / total).to(out_ptr.dtype.element_ty), mask=inside)


def attend(
    qkv: Tensor,
    norm: Tensor,
    cos: Tensor,
    sin: Tensor,
    eps: float,
    memory: Tensor,
    positions: Tensor,
    targets: Tensor,
    table: Tensor,
    page_size: int,
    *,
    alone: bool,
) -> Tensor:
    """qkv [R, h + 2g, D] as it comes from the product; norm [h + g, D]; cos and sin [positions, D / 2] float32; memory
    [2, P, g, D], one layer of the pool; row r stands at `positions[r]` of the sequence whose pages are `table[r]`, and
    its key and value go to pool position `targets[r]` → [R, h·D]. `alone`: no row reads what another one writes."""
    rows, both, width = qkv.shape
    kv_heads = memory.shape[2]
    heads = both - 2 * kv_heads
    stretch_pages = max(1, STRETCH // page_size)
    stretches = triton.cdiv(table.shape[1], stretch_pages)
    keys, values = memory[0], memory[1]
    half = triton.next_power_of_2(width // 2)
    sizes = {"HEADS": heads, "KV_HEADS": kv_heads, "WIDTH": width, "HALF": half}
    out = torch.empty(rows, heads * width, dtype=qkv.dtype, device=qkv.device)
    if not alone:
        keep_kernel[(rows, kv_heads)](
            qkv, norm, cos, sin, positions, targets, keys, values, eps, **sizes, num_warps=1
        )  # fmt: skip
    parts = (rows, heads, stretches) if stretches > 1 else (1, 1, 1)
    peaks = torch.empty(parts, dtype=torch.float32, device=qkv.device)
    totals = torch.empty_like(peaks)
    sums = torch.empty((*parts, width), dtype=torch.float32, device=qkv.device)
    attention_kernel[(rows, kv_heads, stretches)](
        qkv,
        norm,
        cos,
        sin,
        positions,
        targets,
        table,
        table.stride(0) if table.shape[0] > 1 else 0,
        keys,
        values,
        out,
        sums,
        peaks,
        totals,
        stretches,
        eps,
        width**-0.5,
        **sizes,
        GROUP=triton.next_power_of_2(heads // kv_heads),
        PAGE=page_size,
        BLOCK=min(32, triton.next_power_of_2(page_size)),
        STRETCH_PAGES=stretch_pages,
        IS_ONE=stretches == 1,
        ALONE=alone,
        num_warps=4,
    )
    if stretches > 1:
        join_kernel[(rows, heads)](
            positions,
            sums,
            peaks,
            totals,
            out,
            stretches,
            HEADS=heads,
            WIDTH=width,
            BLOCK=triton.next_power_of_2(width),
            STRETCH=stretch_pages * page_size,
            num_warps=1,
        )
    return out
