"""`voicemesh` as a process, for tests: run to its end, or talked to while it runs."""

from __future__ import annotations

import asyncio
import shutil
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

ROOT = Path(__file__).resolve().parents[2]


@dataclass
class Done:
    """How a command ended."""

    code: int
    out: bytes
    errors: str


async def voicemesh(*arguments: str, stdin: bytes = b"") -> Done:
    """Run `voicemesh ARGUMENT…` to its end. A traceback is never an answer."""
    async with started(*arguments) as process:
        out, errors = await process.communicate(stdin)
    assert process.returncode is not None
    assert b"Traceback" not in errors, errors.decode()
    return Done(process.returncode, out, errors.decode())


# SIGINT ends the child even where the tests themselves run in the background of a script. Not by a `preexec_fn`: with
# one, Python forks instead of vforks, and gRPC's threads do not survive a fork.
HEEDING_INTERRUPTS = (shutil.which("env") or "env", "--default-signal=INT")


@asynccontextmanager
async def started(*arguments: str, stdin: int | IO[str] = PIPE, stdout: int = PIPE) -> AsyncIterator[Process]:
    """A running command with pipes where it is given nothing else; killed when the block ends before it has."""
    process: Process = await asyncio.create_subprocess_exec(
        *HEEDING_INTERRUPTS,
        sys.executable,
        "-m",
        "cli",
        *arguments,
        stdin=stdin,
        stdout=stdout,
        stderr=PIPE,
        cwd=ROOT,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
