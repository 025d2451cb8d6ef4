"""Command-line flags from the fields of a settings class: one flag per field, with description, default and range.

Values stay text, and absent flags leave no trace: what they mean and what overrules what is the business of
`common.config`.
"""

from __future__ import annotations

import argparse
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

_BOUNDS = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below"}


def flag_of(name: str) -> str:
    """`max_slots` becomes `--max-slots`."""
    return "--" + name.replace("_", "-")


def parser_of(config: type[BaseModel], program: str) -> argparse.ArgumentParser:
    """An argparse parser for `program` with `--config` and one flag per field."""
    parser = argparse.ArgumentParser(
        prog=program,
        description=(config.__doc__ or "").strip().splitlines()[0],
        argument_default=argparse.SUPPRESS,
        allow_abbrev=False,
    )
    parser.add_argument("--config", metavar="FILE", help="YAML or TOML file with a section for each service")
    add_flags(parser, config)
    return parser


def add_flags(parser: argparse.ArgumentParser | argparse._ArgumentGroup, config: type[BaseModel]) -> None:
    """The flags of every field: `max_slots` becomes `--max-slots`, a switch `--reflection` and `--no-reflection`."""
    for name, field in config.model_fields.items():
        if field.annotation in (bool, bool | None):
            action: Any = argparse.BooleanOptionalAction
            parser.add_argument(flag_of(name), dest=name, action=action, help=_help(field), default=argparse.SUPPRESS)
        else:
            metavar = name.rsplit("_", 1)[-1].upper()
            parser.add_argument(flag_of(name), dest=name, metavar=metavar, help=_help(field), default=argparse.SUPPRESS)


def _help(field: FieldInfo) -> str:
    default = field.get_default(call_default_factory=True)
    facts = [f"default {'none' if default is None or default == '' else default}"]
    if get_origin(field.annotation) is Literal:
        facts.append("one of " + ", ".join(map(str, get_args(field.annotation))))
    bounds = {name: getattr(bound, name) for bound in field.metadata for name in _BOUNDS if hasattr(bound, name)}
    facts += [f"{word} {bounds[name]}" for name, word in _BOUNDS.items() if name in bounds]
    return f"{field.description} ({', '.join(facts)})".replace("%", "%%")
