"""Remake the talker's stored references: `python -m tools.reference.talker --environment DIR [--only NAME] [--real]`.

Builds the environment when it is not there, writes each random checkpoint, runs the reference on it and stores what
it said under tests/reference/tts_lm/, with its provenance.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

from cli.checkpoint.random import write_random
from tools.reference.build import PINNED, build
from tools.reference.talker_cases import CHECKPOINTS, REAL, Checkpoint

ROOT = Path(__file__).parents[2]
STORE = ROOT / "tests" / "reference" / "tts_lm"


def run(python: Path, module: str, *arguments: str) -> None:
    """A module of this folder inside the reference environment."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}
    subprocess.run([str(python), "-m", f"tools.reference.{module}", *arguments], check=True, cwd=ROOT, env=environment)


def make(python: Path, checkpoint: Checkpoint, work: Path) -> None:
    """One checkpoint's reference file and its provenance."""
    directory = work / checkpoint.name
    if not (directory / "config.json").exists():
        write_random(directory, checkpoint.like, checkpoint.type, checkpoint.seed, **checkpoint.overrides)  # type: ignore[arg-type]
    out = STORE / f"{checkpoint.name}.npz"
    which = "real" if checkpoint is REAL else "tiny"
    run(python, "run_talker", str(directory), which, str(out))
    versions = out.with_suffix(".json")
    provenance = {
        "reference": list(PINNED),
        "environment": json.loads(versions.read_text()),
        "checkpoint": asdict(checkpoint) | {"made_by": "cli.checkpoint.random.write_random"},
        "dtype": "float32",
        "sampling": "greedy, repetition penalty of the checkpoint",
    }
    versions.write_text(json.dumps(provenance, indent=2) + "\n")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--environment", type=Path, required=True, help="the reference environment, built when absent")
    parser.add_argument("--only", help="one checkpoint by name")
    parser.add_argument(
        "--real", action="store_true", help="the real 0.6B dimensions too: 2 GB of disk, 10 GB of memory, minutes"
    )
    arguments = parser.parse_args()
    python = arguments.environment / "bin" / "python"
    if not python.exists():
        python = build(arguments.environment)
    STORE.mkdir(parents=True, exist_ok=True)
    chosen = [c for c in (*CHECKPOINTS, *((REAL,) if arguments.real else ())) if arguments.only in (None, c.name)]
    if arguments.only in (None, "processors"):
        run(python, "run_processors", str(STORE / "processors.npz"))
    with tempfile.TemporaryDirectory() as work:
        for checkpoint in chosen:
            make(python, checkpoint, Path(work))
    return 0


if __name__ == "__main__":
    sys.exit(main())
