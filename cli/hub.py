"""Models by id: fetched from the hub once, before the services that share them start."""

from __future__ import annotations

from pathlib import Path

from cli.errors import CommandError, UsageError
from cli.supervisor import say

_FILES = ["*.json", "*.txt", "*.safetensors"]


def directory_of(model: str) -> Path:
    """`model` itself when it is a directory, else the snapshot of that hub id: the cached one, or downloaded now."""
    directory = Path(model).expanduser()
    if directory.is_dir():
        return directory
    if model.count("/") != 1 or model.startswith((".", "/", "~")):
        raise UsageError(f"there is no directory {model!r}, and a hub id would read owner/name")
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        return Path(snapshot_download(model, allow_patterns=_FILES, local_files_only=True))
    except LocalEntryNotFoundError:
        say(f"fetching {model} from the hub.")
    try:
        return Path(snapshot_download(model, allow_patterns=_FILES))
    except (OSError, ValueError) as error:  # what the hub's errors are, all of them
        reason = str(error).strip().split("\n")[0]
        raise CommandError(f"{model} is not in the hub's cache here and cannot be fetched: {reason}") from error
