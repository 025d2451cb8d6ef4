"""What a causal network must remember between calls, and the two ways of using it: tails and a window of keys.

A state is preallocated for S slots and never moves; a step gathers the rows it advances, computes, and writes those
rows back, so every other row stays bit for bit. No shape and no branch depends on a tensor's value.

    one row of `tails`:  | pre_conv: 2 columns | dwconv: 6 | … | final conv: 6 |      (columns × channels each)
    one row of `keys`:   ring of R ≥ (window − 1) + T positions; position p lies at p mod R
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from services.codec.model.conv import Product

EXACT_POSITIONS = 4096
"""Below it angles are float32 products, as in the reference; from it on float64, so that they stay true for ever."""


@dataclass(frozen=True)
class Tail:
    """Where the last `columns` inputs of one convolution lie in a row of `DecoderState.tails`."""

    offset: int
    columns: int
    channels: int

    @property
    def end(self) -> int:
        return self.offset + self.columns * self.channels


class TailPlan:
    """Deals out places in the row while the network is built."""

    def __init__(self) -> None:
        self.width = 0

    def place(self, columns: int, channels: int) -> Tail:
        tail = Tail(self.width, columns, channels)
        self.width = tail.end
        return tail


@dataclass
class DecoderState:
    """S slots. `keys`, `values`: one [S, R, H, D] per layer; `tails` [S, W]; `position` [S] int64: frames seen."""

    keys: list[Tensor]
    values: list[Tensor]
    tails: Tensor
    position: Tensor

    @property
    def slot_count(self) -> int:
        return int(self.position.shape[0])

    def copy_slot(self, source: int, target: int) -> None:
        """Make `target` continue where `source` stands; `source` is left as it is."""
        for tensor in (*self.keys, *self.values, self.tails, self.position):
            tensor[target].copy_(tensor[source])

    def byte_count(self) -> int:
        return sum(t.numel() * t.element_size() for t in (*self.keys, *self.values, self.tails, self.position))


class Step:
    """One call's view of the state: B of its S rows, T frames each.

    `active` [B] int64 names the rows (padding rows may all name one reserved slot); `fresh` [B] bool starts a row from
    nothing, whatever its slot held.
    """

    def __init__(self, state: DecoderState, active: Tensor, fresh: Tensor, frames: int, window: int) -> None:
        self.state = state
        self.active = active
        self._tails = state.tails.index_select(0, active).masked_fill_(fresh.unsqueeze(1), 0.0)
        self._new_tails = torch.empty_like(self._tails)
        start = state.position.index_select(0, active).masked_fill(fresh, 0)
        self.positions = start.unsqueeze(1) + torch.arange(frames, device=active.device)  # [B, T]
        ring = state.keys[0].shape[1]
        self.places = self.positions % ring  # [B, T]
        self.visible = _visible(self.positions, ring, window).unsqueeze(1)  # [B, 1, T, R]

    def past(self, tail: Tail) -> Tensor:
        """What the tail remembers: [B, columns, C]."""
        return self._tails[:, tail.offset : tail.end].view(-1, tail.columns, tail.channels)

    def kept(self, tail: Tail) -> Tensor:
        """Where to write what it shall remember: [B, columns, C]."""
        return self._new_tails[:, tail.offset : tail.end].view(-1, tail.columns, tail.channels)

    def open(self, tail: Tail, length: int) -> tuple[Tensor, Tensor]:
        """A buffer [B, columns + length, C] that begins with the past, and the part of it to fill: [B, length, C]."""
        past = self.past(tail)
        buffer = past.new_empty(past.shape[0], tail.columns + length, tail.channels)
        buffer[:, : tail.columns] = past
        return buffer, buffer[:, tail.columns :]

    def keep(self, tail: Tail, buffer: Tensor) -> None:
        """Remember the end of a filled buffer for the next call."""
        self.kept(tail).copy_(buffer[:, buffer.shape[1] - tail.columns :])

    def with_past(self, tail: Tail, x: Tensor) -> Tensor:
        """x [B, L, C] with the tail's columns before it; remembers its end."""
        buffer, body = self.open(tail, x.shape[1])
        body.copy_(x)
        self.keep(tail, buffer)
        return buffer

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """q [B, T, H, D], k and v [B, T, G, D], q and k rotated → [B, T, H·D], each query over its window."""
        for ring, new in ((self.state.keys[layer], k), (self.state.values[layer], v)):
            ring.index_put_((self.active.unsqueeze(1), self.places), new)
        keys = self.state.keys[layer].index_select(0, self.active).transpose(1, 2)
        values = self.state.values[layer].index_select(0, self.active).transpose(1, 2)
        grouped = q.shape[2] != k.shape[2]
        out = F.scaled_dot_product_attention(
            q.transpose(1, 2), keys, values, attn_mask=self.visible, enable_gqa=grouped
        )
        return out.transpose(1, 2).flatten(2)

    def close(self) -> None:
        """Write back what every row must remember; keys and values already are."""
        self.state.tails.index_copy_(0, self.active, self._new_tails)
        self.state.position.index_copy_(0, self.active, self.positions[:, -1] + 1)


def _visible(positions: Tensor, ring: int, window: int) -> Tensor:
    """[B, T, R] bool: which ring entries each query sees once this call's keys are in.

    newest = 9, R = 8:   entry  0 1 2 3 4 5 6 7
                         holds  8 9 2 3 4 5 6 7      query 8, window 4: sees 5 6 7 8, not 9
    """
    newest = positions[:, -1:]
    entry = torch.arange(ring, device=positions.device)
    held = (newest - (newest - entry) % ring).unsqueeze(1)  # [B, 1, R]
    query = positions.unsqueeze(2)
    return (held >= 0) & (held <= query) & (held > query - window)


class CausalConv:
    """A stride-1 convolution that sees only the past: `Product` and its place in the state."""

    def __init__(self, product: Product, in_channels: int, plan: TailPlan) -> None:
        self.product = product
        self.tail = plan.place(product.columns, in_channels)

    def __call__(self, x: Tensor, step: Step) -> Tensor:
        return self.product(step.with_past(self.tail, x))


class Rotary:
    """NeoX half-split rotation by absolute position, exact however long a stream runs."""

    def __init__(self, head_dim: int, theta: float, dtype: torch.dtype, device: torch.device) -> None:
        exponent = torch.arange(0, head_dim, 2, dtype=torch.int64).to(torch.float32) / head_dim
        self._inverse = (1.0 / theta**exponent).to(device)
        self._dtype = dtype

    def angles(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """positions [B, T] int64 → cos, sin [B, T, 1, D/2] in the working dtype."""
        near = positions.to(torch.float32).unsqueeze(-1) * self._inverse
        far = positions.to(torch.float64).unsqueeze(-1) * self._inverse.to(torch.float64)
        use_near = (positions < EXACT_POSITIONS).unsqueeze(-1)
        cos = torch.where(use_near, near.cos().to(torch.float64), far.cos())
        sin = torch.where(use_near, near.sin().to(torch.float64), far.sin())
        return cos.unsqueeze(2).to(self._dtype), sin.unsqueeze(2).to(self._dtype)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """x [B, T, H, D]: pairs (i, i + D/2) turned by their angle."""
    a, b = x.chunk(2, dim=-1)
    return torch.cat([a * cos - b * sin, b * cos + a * sin], dim=-1)
