"""Dense products over time, channels last: one call for convolutions and linear layers alike.

On the CPU the weights are packed once in the layout oneDNN wants for the shape at hand; torch's public
convolution repacks them on every call, and its matrix product (MKL) stays on AVX2 on AMD processors.
Measured on 2 cores of an AVX-512 EPYC, float32, 768 → 768 channels, kernel 7, 32 columns: 0.6 ms packed,
2.6 ms `conv1d`, 2.1 ms unfolded matrix product. On a GPU whichever is faster there, cuDNN's convolution or the
unfolded product, is found for each shape when it is first seen. This file refuses to know what the products are for.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

_PACKED_DTYPES = (torch.float32, torch.bfloat16)
_OPS: Any = torch.ops.mkldnn
_CAN_PACK = all(hasattr(_OPS, name) for name in ("_convolution_pointwise", "data_ptr", "_nbytes")) and hasattr(
    torch._C._nn, "mkldnn_reorder_conv2d_weight"
)
_PLAIN_WEIGHTS, _PLAIN_PRODUCTS = 2**18, 2**20
"""A packed call costs 25 µs before it computes; linear layers of so few weights and multiplications are faster without
(128 → 384, one row: 5 µs against 26; 96 → 96, 32 rows: 9 against 27), while large cold weights are not."""

_MEASURED_RUNS = 5


class Product:
    """x [B, L + (K−1)·dilation, I] → [B, L, O]: a valid convolution over time, kernel K (1: a linear layer).

    `flat` unfolds the K columns into one product over B·L rows: better where one row of the batch has few columns.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None, *, dilation: int = 1, flat: bool = False) -> None:
        """`weight` [O, I, K] or [O, I]."""
        weight = weight if weight.dim() == 3 else weight.unsqueeze(2)
        self.taps = weight.shape[2]
        self.dilation = dilation
        self._bias = bias
        if flat or self.taps == 1:
            weight = weight.transpose(1, 2).reshape(weight.shape[0], -1, 1)  # [O, K·I]
        self._flat = weight.shape[2] == 1
        self._ways: Fastest | None = None
        if weight.device.type == "cuda" and not self._flat:
            unfolded = Product(weight, bias, dilation=dilation, flat=True)
            self._ways = Fastest([lambda x: self._convolve(x), unfolded])
        packs = _CAN_PACK and weight.device.type == "cpu" and weight.dtype in _PACKED_DTYPES
        self._weight = weight.unsqueeze(2).contiguous(memory_format=torch.channels_last)  # [O, I, 1, K]
        self._packings: dict[tuple[int, int], Tensor] | None = {} if packs else None

    @property
    def columns(self) -> int:
        """How many past columns one new column looks back on."""
        return (self.taps - 1) * self.dilation

    def __call__(self, x: Tensor) -> Tensor:
        if self._ways is not None:
            return self._ways(x)
        if not self._flat:
            return self._convolve(x)
        batch, length = x.shape[0], x.shape[1] - self.columns
        if self.taps > 1:
            x = torch.cat([x[:, k * self.dilation : k * self.dilation + length] for k in range(self.taps)], dim=2)
        return self._convolve(x.reshape(1, batch * length, -1)).view(batch, length, -1)

    def _convolve(self, x: Tensor) -> Tensor:
        dilation = (1, 1 if self._flat else self.dilation)
        image = x.unsqueeze(1).permute(0, 3, 1, 2)  # [B, I, 1, L], channels last in memory
        if self._packings is None or self._is_small(x):
            out = self._plain(x, image, dilation)
        else:
            packed = self._packing(self._packings, image, dilation)
            out = _OPS._convolution_pointwise(image, packed, self._bias, (0, 0), (1, 1), dilation, 1, "none", [], "")
        return out.permute(0, 2, 3, 1).squeeze(1)

    def _is_small(self, x: Tensor) -> bool:
        weights = self._weight.numel()
        return self._flat and weights <= _PLAIN_WEIGHTS and x.shape[0] * x.shape[1] * weights < _PLAIN_PRODUCTS

    def _plain(self, x: Tensor, image: Tensor, dilation: tuple[int, int]) -> Tensor:
        if self._flat:
            return F.linear(x, self._weight[:, :, 0, 0], self._bias).unsqueeze(1).permute(0, 3, 1, 2)
        return F.conv2d(image, self._weight, self._bias, dilation=dilation)

    def _packing(self, packings: dict[tuple[int, int], Tensor], image: Tensor, dilation: tuple[int, int]) -> Tensor:
        """The weights as oneDNN wants them for this batch and length; shapes that want the same bytes share them.

        A packing for another shape still gives the right answer, but is converted on every call (10 to 100 ms seen).
        """
        shape = (image.shape[0], image.shape[3])
        if shape not in packings:
            reorder: Any = torch._C._nn.mkldnn_reorder_conv2d_weight  # its stub lacks arguments
            packed = reorder(self._weight.to_mkldnn(), (0, 0), (1, 1), dilation, 1, image.shape)
            packings[shape] = next((p for p in packings.values() if _same_bytes(p, packed)), packed)
        return packings[shape]


class Fastest:
    """Of equal ways to compute [B, L, I] → [B, M, O] the one that took least when that (B, L) was first seen; the
    first where nobody may measure, in a capture or a compiler. Every shape is seen before it is captured."""

    def __init__(
        self,
        ways: Sequence[Callable[[Tensor], Tensor]],
        seconds: Callable[[Callable[[Tensor], Tensor], Tensor], float] | None = None,
    ) -> None:
        self._ways, self._seconds = ways, seconds or _seconds_on_gpu
        self._chosen: dict[tuple[int, int], int] = {}

    def __call__(self, x: Tensor) -> Tensor:
        shape = (x.shape[0], x.shape[1])
        if shape not in self._chosen and not _is_recorded():
            times = [self._seconds(way, x) for way in self._ways]
            self._chosen[shape] = times.index(min(times))
        return self._ways[self._chosen.get(shape, 0)](x)


def _is_recorded() -> bool:
    return torch.compiler.is_compiling() or (torch.cuda.is_available() and torch.cuda.is_current_stream_capturing())


def _seconds_on_gpu(way: Callable[[Tensor], Tensor], x: Tensor) -> float:
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
    way(x)  # the library tries its algorithms
    begin.record()
    for _ in range(_MEASURED_RUNS):
        way(x)
    end.record()
    end.synchronize()
    return float(begin.elapsed_time(end)) / 1000


def _same_bytes(a: Tensor, b: Tensor) -> bool:
    return bool(_OPS._nbytes(a) == _OPS._nbytes(b)) and torch.equal(_bytes(a), _bytes(b))


def _bytes(packed: Tensor) -> Tensor:
    """The packed weights as they lie in memory, without a copy."""
    buffer = (ctypes.c_uint8 * _OPS._nbytes(packed)).from_address(_OPS.data_ptr(packed))
    return torch.frombuffer(buffer, dtype=torch.uint8)
