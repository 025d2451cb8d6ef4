"""The compiled kernels as Python calls: structures mirrored from stack.cpp, tensors handed over by address.

A call gives up the interpreter while it runs. Whoever hands a tensor over keeps it alive; the structures here do so.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from services.tts_lm.model.matrix import Int8Matrix, Matrix

KINDS = {torch.float32: 0, torch.bfloat16: 1, torch.int8: 2}


class MatrixStruct(ctypes.Structure):
    _fields_ = (
        ("weights", ctypes.c_void_p),
        ("scales", ctypes.c_void_p),
        ("rows", ctypes.c_int64),
        ("columns", ctypes.c_int64),
        ("kind", ctypes.c_int64),
    )


class LayerStruct(ctypes.Structure):
    _fields_ = (
        ("attention_norm", ctypes.c_void_p),
        ("qk_norm", ctypes.c_void_p),
        ("mlp_norm", ctypes.c_void_p),
        ("qkv", MatrixStruct),
        ("output", MatrixStruct),
        ("gate_up", MatrixStruct),
        ("down", MatrixStruct),
    )


class StackStruct(ctypes.Structure):
    _fields_ = (
        ("layers", ctypes.POINTER(LayerStruct)),
        ("norm", ctypes.c_void_p),
        ("cosines", ctypes.c_void_p),
        ("sines", ctypes.c_void_p),
        ("layer_count", ctypes.c_int64),
        ("width", ctypes.c_int64),
        ("inner", ctypes.c_int64),
        ("heads", ctypes.c_int64),
        ("kv_heads", ctypes.c_int64),
        ("head_size", ctypes.c_int64),
        ("eps", ctypes.c_double),
    )


class BatchStruct(ctypes.Structure):
    _fields_ = (
        ("rows", ctypes.c_int64),
        ("positions", ctypes.c_void_p),
        ("targets", ctypes.c_void_p),
        ("lengths", ctypes.c_void_p),
        ("starts", ctypes.c_void_p),
        ("tables", ctypes.c_void_p),
        ("memory", ctypes.c_void_p),
        ("capacity", ctypes.c_int64),
        ("kind", ctypes.c_int64),
    )


class PredictorStruct(ctypes.Structure):
    _fields_ = (
        ("stack", ctypes.POINTER(StackStruct)),
        ("heads", ctypes.POINTER(MatrixStruct)),
        ("table", MatrixStruct),
        ("offsets", ctypes.c_void_p),
        ("codebooks", ctypes.c_int64),
    )


class SamplingStruct(ctypes.Structure):
    _fields_ = (
        ("greedy", ctypes.c_void_p),
        ("temperatures", ctypes.c_void_p),
        ("top_ks", ctypes.c_void_p),
        ("uniforms", ctypes.c_void_p),
        ("uniform_stride", ctypes.c_int64),
    )


class Library:
    """One loaded library, and its threads: how many compute one product together, in this whole process."""

    def __init__(self, path: Path, thread_count: int | None = None) -> None:
        """Threads stay as they were unless told; one at first."""
        self.path = path
        self._calls = ctypes.CDLL(str(path))
        for name, arguments in _SIGNATURES.items():
            getattr(self._calls, name).argtypes = arguments
            getattr(self._calls, name).restype = None
        self.lanes: int = self._calls.voicemesh_lanes()
        if thread_count is not None:
            self.set_threads(thread_count)

    def set_threads(self, count: int) -> None:
        """For every product from now on."""
        self._calls.voicemesh_threads(count)

    def supports(self, head_sizes: Iterable[int]) -> bool:
        """Whether heads of these sizes fill vectors; every other dimension may be anything."""
        return all(size % self.lanes == 0 and size // self.lanes in (1, 2, 4, 8, 16, 32) for size in head_sizes)

    def product(self, x: Tensor, matrix: NativeMatrix) -> Tensor:
        """x [R, I] float32 → [R, O]."""
        assert x.dtype == torch.float32
        assert x.shape[1] == matrix.struct.columns
        x, out = x.contiguous(), x.new_empty(x.shape[0], matrix.struct.rows)
        self._calls.voicemesh_product(ctypes.byref(matrix.struct), x.data_ptr(), x.shape[0], out.data_ptr())
        return out

    def stack(self, stack: StackStruct, batch: BatchStruct, x: Tensor) -> Tensor:
        """x [R, H] float32, overwritten → [R, H], the last norm of it."""
        out = torch.empty_like(x)
        self._calls.voicemesh_stack(ctypes.byref(stack), ctypes.byref(batch), x.data_ptr(), out.data_ptr())
        return out

    def predict(
        self,
        predictor: PredictorStruct,
        batches: ctypes.Array[BatchStruct],
        sampling: SamplingStruct,
        hidden: Tensor,
        codes: Tensor,
    ) -> None:
        """hidden [S, H] float32, codes [S, Q] int64 with code 0 in place: fills in codes 1 … Q−1."""
        self._calls.voicemesh_predict(
            ctypes.byref(predictor),
            batches,
            ctypes.byref(sampling),
            hidden.shape[0],
            hidden.data_ptr(),
            codes.data_ptr(),
        )


_SIGNATURES: dict[str, list[Any]] = {
    "voicemesh_threads": [ctypes.c_int],
    "voicemesh_product": [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64, ctypes.c_void_p],
    "voicemesh_stack": [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p],
    "voicemesh_predict": [
        ctypes.c_void_p,
        ctypes.c_void_p,
        ctypes.c_void_p,
        ctypes.c_int64,
        ctypes.c_void_p,
        ctypes.c_void_p,
    ],
}


class NativeMatrix:
    """A matrix by address, and the tensors that own it."""

    def __init__(self, matrix: Matrix) -> None:
        values, scales = (matrix.values, matrix.scales) if isinstance(matrix, Int8Matrix) else (matrix, None)
        assert values.is_contiguous()
        self._owners = (values, scales)
        rows, columns = values.shape
        address = None if scales is None else scales.data_ptr()
        self.struct = MatrixStruct(values.data_ptr(), address, rows, columns, KINDS[values.dtype])
