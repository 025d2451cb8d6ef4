"""The entry point: one parser, one exit code. 0 it worked, 1 it failed, 2 it was used wrongly."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from cli.commands import bench, chat, checkpoint, codes, decode, doctor, say, serve, tune, voices
from cli.errors import CommandError

_COMMANDS = (serve, say, chat, codes, decode, voices, checkpoint, bench, tune, doctor)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; a failure is a sentence on stderr."""
    args = _parser().parse_args(argv)
    try:
        code: int = args.run(args)
        sys.stdout.flush()
        return code
    except CommandError as error:
        print(f"voicemesh: {error}", file=sys.stderr)
        return error.exit_code
    except ModuleNotFoundError as error:
        print(f"voicemesh: the Python package {error.name} is missing: run `make setup`", file=sys.stderr)
        return 1
    except BrokenPipeError:
        # The reader of our output has gone; Python must not fail again while flushing it at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except KeyboardInterrupt:
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="voicemesh", description="Realtime spoken conversation as a mesh of four independent gRPC services."
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="print the version and leave")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for command in _COMMANDS:
        command.register(commands)
    return parser


class _Version(argparse.Action):
    """Looked up when asked for: importlib.metadata is not free."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        from importlib.metadata import PackageNotFoundError, version

        try:
            print(f"voicemesh {version('voicemesh')}")
        except PackageNotFoundError:
            print("voicemesh (not installed)")
        parser.exit(0)
