"""`voicemesh bench NAME …` hands over to a module of `bench/` in the source tree: `main(argv)`, with its own help."""

from __future__ import annotations

import argparse
import ast
import importlib
import sys
from pathlib import Path

from cli.errors import CommandError, UsageError

ROOT = Path(__file__).resolve().parents[2]


def register(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser("bench", help="run a benchmark; without a name, list them")
    parser.add_argument("name", nargs="?")
    parser.add_argument("arguments", nargs=argparse.REMAINDER, help="for the benchmark; NAME --help explains them")
    parser.set_defaults(run=run_bench)


def run_bench(args: argparse.Namespace) -> int:
    """The benchmark's own exit code."""
    known = benchmarks(ROOT / "bench")
    if not known:
        raise CommandError(f"there are no benchmarks in {ROOT / 'bench'}: they come with the source tree")
    if args.name is None:
        print("\n".join(f"{name:<12} {about}" for name, about in known.items()))
        return 0
    if args.name not in known:
        raise UsageError(f"there is no benchmark {args.name!r}: choose one of {', '.join(known)}")
    sys.path.insert(0, str(ROOT))  # bench/ is not installed with the packages
    try:
        return int(importlib.import_module(f"bench.{args.name}").main(args.arguments))
    except FileNotFoundError as error:
        raise CommandError(f"{error.filename} does not exist") from error


def benchmarks(directory: Path) -> dict[str, str]:
    """Name → first line of the docstring, for every module with a `main`; read, not imported."""
    found = {}
    for path in sorted(directory.glob("*.py")):
        module = ast.parse(path.read_text(encoding="utf-8"))
        if any(isinstance(node, ast.FunctionDef) and node.name == "main" for node in module.body):
            found[path.stem] = (ast.get_docstring(module) or "").split("\n")[0]
    return found
