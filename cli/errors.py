"""How a command fails: one sentence on stderr and an exit code, never a traceback."""

from __future__ import annotations


class CommandError(Exception):
    """The command failed for a reason worth a sentence: exit 1."""

    exit_code = 1


class UsageError(CommandError):
    """The command was used wrongly in a way argparse cannot see: exit 2."""

    exit_code = 2
