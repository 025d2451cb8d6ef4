"""Where a checkpoint's files are and what is in them: a directory or a hub id, one weight file or several shards.

Refuses to know what the tensors are for; `weights.py` gives them their meaning.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from services.tts_lm.model.config import CheckpointError, read_json

NEEDED_FILES = ["*.json", "*.txt", "*.safetensors", "speech_tokenizer/*.json"]


def locate(model: str, *, local_files_only: bool = False) -> Path:
    """The directory of `model`: itself if it is one, else the hub snapshot, downloaded once and then served offline."""
    directory = Path(model).expanduser()
    if directory.is_dir():
        return directory
    if model.count("/") != 1 or model.startswith((".", "/", "~")):
        raise CheckpointError(f"there is no directory {model!r}, and a hub id would read owner/name")
    return _snapshot(model, local_files_only)


def _snapshot(model: str, local_files_only: bool) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import GatedRepoError, LocalEntryNotFoundError, RepositoryNotFoundError

    try:  # what is here already needs no network, and must not wait for one that is down
        cached = Path(snapshot_download(model, allow_patterns=NEEDED_FILES, local_files_only=True))
        if (cached / "config.json").exists() and weight_files(cached):
            return cached
    except (LocalEntryNotFoundError, CheckpointError):
        pass
    if local_files_only:
        raise CheckpointError(f"{model} is not in the local hub cache, and downloading is switched off")
    try:
        return Path(snapshot_download(model, allow_patterns=NEEDED_FILES))
    except (RepositoryNotFoundError, GatedRepoError) as error:
        raise CheckpointError(f"the hub does not offer {model} to this account, or it does not exist") from error
    except (LocalEntryNotFoundError, OSError, ValueError) as error:
        raise CheckpointError(
            f"{model} is not in the local hub cache and the hub cannot be reached: {error}"
        ) from error


def weight_files(directory: Path) -> tuple[Path, ...]:
    """The weight files of `directory`: those of the index, or the single one."""
    index, names = directory / "model.safetensors.index.json", ["model.safetensors"]
    if index.exists():
        names = sorted(set(read_json(index).get("weight_map", {}).values()))
    paths = tuple(directory / name for name in names)
    missing = [path.name for path in paths if not path.exists()]
    if missing or not paths:
        raise CheckpointError(f"{directory} has no {', '.join(missing) or 'weights'}")
    return paths


class TensorFiles:
    """Tensors of one checkpoint by name, read lazily; remembers which were taken, so that none is overlooked."""

    def __init__(self, paths: tuple[Path, ...]) -> None:
        self._where: dict[str, Path] = {}
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._taken: set[str] = set()
        for path in paths:
            _refuse_broken_file(path)
            with _opened(path) as file:
                for name in file.keys():  # noqa: SIM118 - safe_open is no mapping
                    if name in self._where:
                        raise CheckpointError(f"{name} is in both {self._where[name].name} and {path.name}")
                    self._where[name] = path
                    self._shapes[name] = tuple(file.get_slice(name).get_shape())

    def check(self, expected: dict[str, tuple[int, ...]], ignored: tuple[str, ...]) -> None:
        """Every expected tensor is there with its shape, and nothing else but what starts with an ignored prefix."""
        missing = sorted(expected.keys() - self._shapes.keys())
        surplus = sorted(n for n in self._shapes.keys() - expected.keys() if not n.startswith(ignored))
        wrong = [
            f"{name} is {list(self._shapes[name])}, config.json implies {list(shape)}"
            for name, shape in expected.items()
            if name in self._shapes and self._shapes[name] != shape
        ]
        complaints = [
            *([f"missing: {_some(missing)}"] if missing else []),
            *([f"not known: {_some(surplus)}"] if surplus else []),
            *([f"wrong shape: {_some(wrong)}"] if wrong else []),
        ]
        if complaints:
            raise CheckpointError(f"the weights do not match config.json; {'; '.join(complaints)}")

    def read(self, names: list[str]) -> Iterator[tuple[str, torch.Tensor]]:
        """The named tensors, file by file, in the dtype they are stored in."""
        for path in sorted({self._where[name] for name in names}):
            with _opened(path) as file:
                for name in names:
                    if self._where[name] == path:
                        yield name, file.get_tensor(name)


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    try:
        with safe_open(path, framework="pt") as file:
            yield file
    except SafetensorError as error:
        raise CheckpointError(f"{path} is truncated or corrupt: {error}") from error
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error}") from error


def _refuse_broken_file(path: Path) -> None:
    """A file cut short is the common accident of a download: say how many bytes are missing."""
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            header_size = int.from_bytes(file.read(8), "little")
            if not 0 < header_size <= min(size - 8, 100_000_000):
                raise CheckpointError(f"{path} is truncated or corrupt: it is not a safetensors file")
            header = json.loads(file.read(header_size))
        ends = [int(entry["data_offsets"][1]) for name, entry in header.items() if name != "__metadata__"]
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{path} is truncated or corrupt: its header cannot be read") from error
    expected = 8 + header_size + max(ends, default=0)
    if size != expected:
        raise CheckpointError(f"{path} is truncated or corrupt: {size} bytes, its header promises {expected}")


def _some(names: list[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
