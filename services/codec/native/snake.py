"""The compiled snake activation as a Python call: float32 tensors on the CPU, handed over by address.

A call gives up the interpreter while it runs. It computes on one thread: a step of the codec is too small to share.
"""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Any

import torch
from torch import Tensor


class NativeSnake:
    """One loaded library."""

    def __init__(self, path: Path) -> None:
        self._call = ctypes.CDLL(str(path)).voicemesh_snake
        pointer, size = ctypes.c_void_p, ctypes.c_int64
        arguments: list[Any] = [*[pointer] * 4, size, pointer, *[size] * 5, pointer]
        self._call.argtypes = arguments
        self._call.restype = None

    def __call__(self, x: Tensor, alpha: Tensor, inverse_beta: Tensor, past: Tensor, kept: Tensor) -> Tensor:
        """x [B, L, C] contiguous, past and kept [B, K, C] with contiguous rows → [B, K + L, C]; `kept` is written. K
        may be 0. All float32."""
        rows, length, channels = x.shape
        columns = past.shape[1]
        assert x.is_contiguous(), "the kernel walks x as it lies"
        assert x.dtype == torch.float32
        out = x.new_empty(rows, columns + length, channels)
        self._call(
            x.data_ptr(),
            alpha.data_ptr(),
            inverse_beta.data_ptr(),
            past.data_ptr(),
            past.stride(0),
            kept.data_ptr(),
            kept.stride(0),
            rows,
            length,
            channels,
            columns,
            out.data_ptr(),
        )
        return out
