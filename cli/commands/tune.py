"""`voicemesh tune`: build the CPU kernels for this machine, measure them against torch's, remember what is faster."""

from __future__ import annotations

import argparse
import json

from cli.errors import CommandError, UsageError

_DTYPES = ("float32", "bfloat16", "int8")


def register(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser("tune", help="build the CPU kernels and measure which are fastest on this machine")
    parser.add_argument("--model", metavar="DIR_OR_ID", help="the speech model (default: as for serve)")
    parser.add_argument("--dtypes", default=",".join(_DTYPES), help="which to measure (default: all three)")
    parser.add_argument("--build-only", action="store_true", help="build the kernels, measure nothing")
    parser.add_argument("--json", action="store_true")
    parser.set_defaults(run=run_tune)


def run_tune(args: argparse.Namespace) -> int:
    """Without a compiler torch's own products are measured alone; that is said, and no failure."""
    from common.native import BuildError
    from services.codec.native import KERNELS as CODEC
    from services.tts_lm.native import KERNELS as TTS_LM

    for dtype in args.dtypes.split(","):
        if dtype not in _DTYPES:
            raise UsageError(f"there is no dtype {dtype!r}: choose of {', '.join(_DTYPES)}")
    libraries: dict[str, str] = {}
    note = ""
    try:
        for kernels in (TTS_LM, CODEC):
            libraries[kernels.name] = str(kernels.build())
    except BuildError as error:
        note = f"{error}; torch's own kernels serve"
    if not args.json:
        print(f"kernels: {', '.join(libraries.values())}{note}")
    measured = {} if args.build_only else _measure(args)
    if args.json:
        print(json.dumps({"libraries": libraries, "note": note, "measured": measured}))
    return 0


def _measure(args: argparse.Namespace) -> dict[str, list[dict[str, object]]]:
    """The rows of each dtype, the chosen one first."""
    from services.tts_lm.kernels import write_measured
    from services.tts_lm.model.checkpoint import locate
    from services.tts_lm.model.config import CheckpointError, load_config
    from services.tts_lm.tuning import measure

    try:
        config = load_config(locate(args.model or _default_model()))
    except CheckpointError as error:
        raise CommandError(str(error)) from error
    measured: dict[str, list[dict[str, object]]] = {}
    for dtype in args.dtypes.split(","):
        timings = measure(config, dtype)
        path = write_measured(config, dtype, timings[0].choice)
        measured[dtype] = [
            {
                "kernels": t.choice.kernels,
                "thread_count": t.choice.thread_count,
                "median_ms": round(t.median_s * 1000, 3),
                "least_ms": round(t.least_s * 1000, 3),
            }
            for t in timings
        ]
        if not args.json:
            _show(dtype, measured[dtype])
    if not args.json:
        print(f"Kept in {path}. Only --dtype chooses a dtype; this chose kernels and threads for each.")
    return measured


def _show(dtype: str, rows: list[dict[str, object]]) -> None:
    print(f"\n{dtype:<10}kernels  threads  layers of a frame, median   least")
    for i, row in enumerate(rows):
        mark = "-> " if i == 0 else "   "
        print(
            f"{mark:>10}{row['kernels']:<9}{row['thread_count']:>7}{row['median_ms']:>23} ms{row['least_ms']:>11} ms",
            flush=True,
        )


def _default_model() -> str:
    from cli.default_model import default_model

    return str(default_model()[0])
