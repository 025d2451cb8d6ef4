"""`voicemesh checkpoint`: write a random checkpoint, or say what a directory is."""

from __future__ import annotations

import argparse
import dataclasses
import json
import time
from pathlib import Path
from typing import TYPE_CHECKING

from cli.errors import CommandError

if TYPE_CHECKING:
    from cli.checkpoint.inspect import Inspection, WeightReport

_NAMES_SHOWN = 8


def register(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser("checkpoint", help="write a random checkpoint, or inspect one")
    actions = parser.add_subparsers(metavar="ACTION", required=True)

    random = actions.add_parser("random", help="random weights in the official layout, with a small tokenizer")
    random.add_argument("directory", metavar="DIR", type=Path)
    random.add_argument("--like", choices=("tiny", "0.6B", "1.7B"), default="tiny", help="dimensions (default tiny)")
    random.add_argument("--type", choices=("custom_voice", "voice_design", "base"), default="custom_voice")
    random.add_argument("--seed", type=_seed, default=0, help="the same seed gives the same bytes (default 0)")
    random.add_argument("--force", action="store_true", help="write into a directory that is not empty")
    random.add_argument("--json", action="store_true", help="say what was written as one JSON object")
    random.set_defaults(run=run_random)

    inspect = actions.add_parser("inspect", help="what a checkpoint is, and whether it is whole")
    inspect.add_argument("directory", metavar="DIR", type=Path)
    inspect.add_argument("--json", action="store_true")
    inspect.set_defaults(run=run_inspect)


def run_random(args: argparse.Namespace) -> int:
    from cli.checkpoint.random import write_random

    if args.directory.exists() and not args.directory.is_dir():
        raise CommandError(f"{args.directory} is a file, not a directory")
    if args.directory.is_dir() and any(args.directory.iterdir()) and not args.force:
        raise CommandError(f"{args.directory} is not empty; --force writes into it all the same")
    begin = time.monotonic()
    try:
        write_random(args.directory, args.like, args.type, args.seed)
    except OSError as error:
        raise CommandError(f"could not write the checkpoint: {error}") from error
    size = sum(file.stat().st_size for file in args.directory.rglob("*") if file.is_file())
    facts = {"directory": str(args.directory), "like": args.like, "type": args.type, "seed": args.seed, "bytes": size}
    if args.json:
        print(json.dumps(facts | {"seconds": round(time.monotonic() - begin, 3)}))
    else:
        print(f"Wrote a random {args.like} {args.type} checkpoint of {_megabytes(size)} into {args.directory}.")
        print("Its weights are noise: it runs like the real model and says nothing.")
    return 0


def run_inspect(args: argparse.Namespace) -> int:
    from cli.checkpoint.inspect import CheckpointUnreadable, inspect

    try:
        report = inspect(args.directory)
    except CheckpointUnreadable as error:
        raise CommandError(str(error)) from error
    if args.json:
        print(json.dumps(dataclasses.asdict(report) | {"whole": report.whole}, ensure_ascii=False))
    else:
        print("\n".join(_sentences(report)))
    return 0 if report.whole else 1


def _sentences(report: Inspection) -> list[str]:
    d, slot = report.dimensions, report.slot_memory
    name = report.published_as or "a model of its own dimensions"
    voices = ", ".join(f"{v} ({dialect})" if dialect else v for v, dialect in report.voices.items())
    no_voices = "none: describe one" if report.model_type == "voice_design" else "none: clone one"
    return [
        f"{report.directory}: {name}, {report.model_type}",
        f"  talker          {d['talker_layers']} layers of {d['talker_hidden']}; code predictor "
        f"{d['code_predictor_layers']} layers of {d['code_predictor_hidden']}",
        f"  codes           {d['codebooks']} codebooks of {d['codebook_size']}; "
        f"a frame is {d['samples_per_frame']} samples at {d['sample_rate_hz']} Hz",
        f"  voices          {voices or no_voices}",
        f"  languages       {', '.join(report.languages)}",
        f"  instructions    {'followed' if report.supports_instruct else 'ignored'}",
        *_weight_sentences("model.safetensors", report.model),
        *_weight_sentences("speech_tokenizer/model.safetensors", report.codec),
        f"  memory per slot {slot['talker_kv_bytes_per_position']:,} B per talker position in bfloat16 "
        f"({_megabytes(slot['talker_kv_bytes_per_minute'])} per minute of speech), "
        f"{_megabytes(slot['codec_state_bytes'])} of codec state in float32",
        "It is whole." if report.whole else "It is NOT whole: the names above say what differs.",
    ]


def _weight_sentences(file: str, weights: WeightReport) -> list[str]:
    dtypes = ", ".join(f"{count} {dtype}" for dtype, count in sorted(weights.dtypes.items()))
    lines = [
        f"  {file}: {weights.parameter_count:,} parameters in {weights.tensor_count} tensors ({dtypes}), "
        f"{weights.file_bytes:,} bytes"
    ]
    lines += [f"    {part:<30} {count:>15,}" for part, count in weights.parameters.items()]
    for label, names in (("missing", weights.missing), ("surplus", weights.surplus), ("misshapen", weights.misshapen)):
        if names:
            more = f" and {len(names) - _NAMES_SHOWN} more" if len(names) > _NAMES_SHOWN else ""
            lines.append(f"    {label}: {', '.join(names[:_NAMES_SHOWN])}{more}")
    return lines


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.1f} MB"


def _seed(text: str) -> int:
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError("a seed is a whole number from 0")
    return value
