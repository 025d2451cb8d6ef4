"""The loudspeaker of this machine: a player that takes raw samples on standard input, if anything can be heard."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from cli.errors import CommandError

PLAYERS = ("pw-play", "paplay", "aplay")


def player() -> str | None:
    """The first installed player that has a sound server or card to play to."""
    runtime = Path(os.environ.get("XDG_RUNTIME_DIR") or f"/run/user/{os.getuid()}")
    there = {
        "pw-play": (runtime / "pipewire-0").exists(),
        "paplay": (runtime / "pulse" / "native").exists(),
        "aplay": any(Path("/dev/snd").glob("pcmC*p")),
    }
    return next((name for name in PLAYERS if there[name] and shutil.which(name)), None)


@contextmanager
def loudspeaker(sample_rate_hz: int) -> Iterator[IO[bytes]]:
    """Where to write 16-bit mono samples; returns when all has been played. CommandError when nothing can be heard."""
    name = player()
    if name is None:
        raise CommandError("there is no sound device here: give --out FILE.wav")
    process = subprocess.Popen(_command(name, sample_rate_hz), stdin=subprocess.PIPE)
    assert process.stdin is not None
    try:
        yield process.stdin
        with suppress(BrokenPipeError):
            process.stdin.close()
        if process.wait() != 0:
            raise CommandError(f"{name} could not play: exit code {process.returncode}; --out FILE.wav writes a file")
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


def _command(name: str, rate: int) -> list[str]:
    return {
        "pw-play": ["pw-play", f"--rate={rate}", "--channels=1", "--format=s16", "-"],
        "paplay": ["paplay", "--raw", f"--rate={rate}", "--channels=1", "--format=s16le"],
        "aplay": ["aplay", "-q", "-t", "raw", "-f", "S16_LE", "-r", str(rate), "-c", "1"],
    }[name]
