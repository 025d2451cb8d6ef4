"""The speech model when none is named: `voices/mini`, and where there is none, random weights in the user's cache."""

from __future__ import annotations

import os
from pathlib import Path

from cli.errors import CommandError

MINI = Path(__file__).resolve().parents[1] / "voices" / "mini"


def cache_directory() -> Path:
    """The user's cache for Voicemesh, as XDG says."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "voicemesh"


def default_model(mini: Path = MINI) -> tuple[Path, str | None]:
    """The directory, and a sentence that must be told when what it says is noise."""
    if (mini / "config.json").exists():
        return mini, None
    from cli.checkpoint.random import cached_tiny

    try:
        directory = cached_tiny(cache_directory())
    except OSError as error:
        raise CommandError(f"no model was named, and random weights cannot be written: {error}") from error
    return directory, (
        f"no model was named and there is no {mini}: serving random weights from {directory}. "
        "They sound like noise; --model names a real one."
    )
