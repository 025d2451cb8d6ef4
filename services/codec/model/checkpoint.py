"""Tensors of a checkpoint by name, each taken exactly once: what is missing, misshapen or left over is named.

Refuses to know what the tensors mean.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor

from common.errors import Broken


class Tensors:
    """The tensors of one safetensors file (or an index with shards) whose names start with `prefix`."""

    def __init__(self, directory: Path, prefix: str) -> None:
        self._source = directory
        self._left = dict(_read(directory, prefix))

    def __bool__(self) -> bool:
        """Whether any is left to take."""
        return bool(self._left)

    def take(self, name: str, *shape: int) -> Tensor:
        """The tensor, in float64 so that what is folded is rounded once; Broken when absent or of another shape."""
        if name not in self._left:
            raise Broken(f"{self._source} has no tensor {name}.")
        tensor = self._left.pop(name)
        if tuple(tensor.shape) != shape:
            raise Broken(f"{name} in {self._source} is {tuple(tensor.shape)}, expected {shape}.")
        return tensor.to(torch.float64)

    def drop(self, name: str, *shape: int) -> None:
        """A tensor that is known and not needed."""
        self.take(name, *shape)

    def finish(self) -> None:
        """Broken when a tensor was never asked for: the checkpoint holds something this code does not know."""
        if self._left:
            names = sorted(self._left)
            raise Broken(f"{self._source} has {len(names)} unknown tensors, first {', '.join(names[:3])}.")


def _read(directory: Path, prefix: str) -> Iterator[tuple[str, Tensor]]:
    for path in _files(directory):
        with safe_open(path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118 (not a mapping)
                if name.startswith(prefix):
                    yield name, file.get_tensor(name)


def _files(directory: Path) -> list[Path]:
    single, index = directory / "model.safetensors", directory / "model.safetensors.index.json"
    if single.is_file():
        return [single]
    if index.is_file():
        return [directory / name for name in sorted(set(json.loads(index.read_text())["weight_map"].values()))]
    raise Broken(f"No model.safetensors in {directory}.")
