"""Compiles a service's CPU kernels for the processor at hand, once, into the user's cache. Knows nothing of what they
compute.

Serving never compiles: it takes what set-up or `voicemesh tune` has built, and does without where nothing was.
"""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path

FLAGS = ["-O3", "-std=c++20", "-march=native", "-shared", "-fPIC", "-pthread", "-w"]
WIDE_VECTORS = "-mprefer-vector-width=512"
"""GCC and Clang take half of AVX-512 by themselves; other processors' compilers do not know the flag."""
COMPILERS = ("c++", "g++", "clang++")
COMPILE_LIMIT_S = 300


class BuildError(RuntimeError):
    """There is no compiler, or it refused."""


def cache_directory() -> Path:
    """Where this user's programs keep what they can make again."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "voicemesh"


def compiler() -> str | None:
    """The C++ compiler: CXX, else the first usual name that is there."""
    for name in filter(None, (os.environ.get("CXX"), *COMPILERS)):
        if found := shutil.which(name):
            return found
    return None


@dataclass(frozen=True)
class Kernels:
    """The C++ files of one folder, of which `main` is compiled into one library; the others are included by it."""

    name: str
    folder: Path
    main: str

    def target(self, directory: Path | None = None) -> Path:
        """Where the library for these sources and this processor lies, built or not."""
        return (directory or cache_directory()) / f"{self.name}-{self._fingerprint()}.so"

    def built(self, directory: Path | None = None) -> Path | None:
        """The library, if somebody built it."""
        path = self.target(directory)
        return path if path.exists() else None

    def build(self, directory: Path | None = None) -> Path:
        """The library, compiled now (some seconds) unless it is there. Raises `BuildError`, with a sentence."""
        path = self.target(directory)
        if path.exists():
            return path
        program = compiler()
        if program is None:
            raise BuildError(f"there is no C++ compiler here (looked for {', '.join(COMPILERS)})")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=path.parent) as scratch:
                half_done = Path(scratch) / path.name
                _compile(program, self.folder / self.main, half_done)
                half_done.replace(path)  # whoever builds at the same time builds the same
        except OSError as error:
            raise BuildError(f"{path} cannot be written: {error}") from error
        return path

    def _fingerprint(self) -> str:
        """A library runs on the processor it was made for only, so the processor is part of its name."""
        digest = hashlib.sha256(processor().encode())
        for path in sorted(self.folder.glob("*.?pp")):
            digest.update(path.read_bytes())
        digest.update(" ".join(FLAGS).encode())
        return digest.hexdigest()[:16]


def _compile(program: str, source: Path, out: Path) -> None:
    wide = [WIDE_VECTORS] if "avx512f" in processor() else []
    command = [program, *FLAGS, *wide, str(source), "-o", str(out)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=COMPILE_LIMIT_S, check=False)
    except subprocess.TimeoutExpired as error:
        raise BuildError(f"{program} took more than {COMPILE_LIMIT_S} s") from error
    if done.returncode:
        raise BuildError(f"{program} failed: {done.stderr.strip()[-400:]}")


@cache
def processor() -> str:
    """What can be told of the instruction set."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return f"{platform.machine()} {platform.processor()}"
    wanted = ("model name", "flags", "Features", "CPU part")
    told = {line.partition(":")[0].strip(): line.partition(":")[2].strip() for line in lines if line.startswith(wanted)}
    return f"{platform.machine()} {sorted(told.items())}"
