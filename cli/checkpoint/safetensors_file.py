"""One safetensors file: its header as the safetensors library writes it, a streaming writer, and a reader of headers.

The library sorts tensors of one dtype by name, states dtype, shape and data_offsets without spaces, and pads the header
with spaces to a multiple of eight bytes; so a table of shapes alone decides the size of a file. Values never pass
through here as a whole: a tensor is written chunk by chunk.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

DType = Literal["BF16", "F32"]
Shape = tuple[int, ...]
Chunks = Iterable[npt.NDArray[np.float32]]
Metadata = Mapping[str, str]

ITEM_BYTES: Mapping[str, int] = {
    "F64": 8, "I64": 8, "U64": 8, "F32": 4, "I32": 4, "U32": 4,
    "BF16": 2, "F16": 2, "I16": 2, "U16": 2, "I8": 1, "U8": 1, "BOOL": 1, "F8_E4M3": 1, "F8_E5M2": 1,
}  # fmt: skip
_MAX_HEADER_BYTES = 100_000_000
"""The safetensors library refuses longer headers, and so do we: a length beyond it is damage, not a model."""


class DamagedFile(ValueError):
    """A file that is no whole safetensors file; the message says why in a sentence."""


@dataclass(frozen=True)
class TensorEntry:
    """What a header says of one tensor."""

    dtype: str
    shape: Shape
    begin: int
    end: int


def header_bytes(shapes: Mapping[str, Shape], dtype: DType, metadata: Metadata | None = None) -> bytes:
    """Length prefix and padded JSON header of a file with these tensors, all of one dtype."""
    header: dict[str, object] = {"__metadata__": dict(metadata)} if metadata else {}
    offset = 0
    for name in sorted(shapes):
        end = offset + math.prod(shapes[name]) * ITEM_BYTES[dtype]
        header[name] = {"dtype": dtype, "shape": list(shapes[name]), "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text


def file_bytes(shapes: Mapping[str, Shape], dtype: DType, metadata: Metadata | None = None) -> int:
    """Exact size of such a file, without writing it."""
    values = sum(math.prod(shape) for shape in shapes.values())
    return len(header_bytes(shapes, dtype, metadata)) + values * ITEM_BYTES[dtype]


def write(
    path: Path,
    shapes: Mapping[str, Shape],
    dtype: DType,
    values: Callable[[str, Shape], Chunks],
    metadata: Metadata | None = None,
) -> None:
    """Write the tensors in file order; `values(name, shape)` yields float32 chunks in row-major order."""
    with path.open("wb") as file:
        file.write(header_bytes(shapes, dtype, metadata))
        for name in sorted(shapes):
            written = 0
            for chunk in values(name, shapes[name]):
                encoded = _bfloat16(chunk) if dtype == "BF16" else np.ascontiguousarray(chunk)
                file.write(encoded.tobytes())
                written += chunk.size
            if written != math.prod(shapes[name]):
                raise ValueError(f"{name}: {written} values for shape {shapes[name]}")


def read_header(path: Path) -> tuple[dict[str, TensorEntry], dict[str, str]]:
    """Entries and metadata of a file; raises DamagedFile when it is cut short, too long or not safetensors at all."""
    size = path.stat().st_size
    with path.open("rb") as file:
        prefix = file.read(8)
        if len(prefix) < 8:
            raise DamagedFile(f"{path} holds {size} bytes: too short for a safetensors file")
        (length,) = struct.unpack("<Q", prefix)
        if length > _MAX_HEADER_BYTES or 8 + length > size:
            raise DamagedFile(f"{path} is no whole safetensors file: its header claims {length} bytes of {size}")
        text = file.read(length)
    entries, metadata = _parse(path, text)
    expected = 8 + length + max((entry.end for entry in entries.values()), default=0)
    if size != expected:
        state = "cut short" if size < expected else "too long"
        raise DamagedFile(f"{path} is {state}: it holds {size} bytes, its header describes {expected}")
    return entries, metadata


def _parse(path: Path, text: bytes) -> tuple[dict[str, TensorEntry], dict[str, str]]:
    try:
        header = json.loads(text)
        metadata = dict(header.pop("__metadata__", {}))
        entries = {name: TensorEntry(e["dtype"], tuple(e["shape"]), *e["data_offsets"]) for name, e in header.items()}
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise DamagedFile(f"{path} has no readable safetensors header: {error}") from error
    for name, entry in entries.items():
        if entry.end - entry.begin != math.prod(entry.shape) * ITEM_BYTES.get(entry.dtype, 0):
            raise DamagedFile(
                f"{path}: tensor {name} has {entry.dtype} {entry.shape} but {entry.end - entry.begin} bytes"
            )
    return entries, metadata


def _bfloat16(values: npt.NDArray[np.float32]) -> npt.NDArray[np.uint16]:
    """Round to nearest, ties to even, as torch does; finite values only."""
    bits = np.ascontiguousarray(values).view(np.uint32)
    return ((bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16)).astype(np.uint16)
