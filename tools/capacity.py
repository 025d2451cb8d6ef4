"""`python -m tools.capacity --people N` says how many pods of each stage that takes: the sums of docs/operations.md.

What one pod carries is an argument, because only a measurement on the machines at hand knows it; the defaults are this
project's aims for one H200 and its measurements for the gateway. Pure arithmetic.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass, fields

SPREAD = 3.0  # standard deviations of chance above the mean that must find room


@dataclass(frozen=True)
class Load:
    """How many people are there, and the share of their time in which each stage works for one of them."""

    people: int = 10_000
    spoken_to_share: float = 1.0
    thought_for_share: float = 0.15


@dataclass(frozen=True)
class Pods:
    """What one pod of each stage carries, and how full it may be."""

    gateway_sessions: int = 32
    tts_lm_streams: int = 128
    codec_streams: int = 256
    brain_turns: int = 256
    vllm_turns: int = 64
    fill: float = 0.7
    spare: int = 1  # pods that may be lost or replaced at any time


def at_once(people: int, share: float) -> int:
    """How many of them are in that state at once, with room for chance (independent people: binomial)."""
    mean = people * share
    return min(people, math.ceil(mean + SPREAD * math.sqrt(mean * (1 - share))))


def plan(load: Load, pods: Pods) -> dict[str, tuple[int, int]]:
    """(what has to be carried at once, pods) for each stage."""
    speaking, thinking = at_once(load.people, load.spoken_to_share), at_once(load.people, load.thought_for_share)
    carried = {
        "gateway": (load.people, pods.gateway_sessions),
        "tts_lm": (speaking, pods.tts_lm_streams),
        "codec": (speaking, pods.codec_streams),
        "brain": (thinking, pods.brain_turns),
        "vllm": (thinking, pods.vllm_turns),
    }
    return {
        stage: (units, math.ceil(round(units / (each * pods.fill), 9)) + pods.spare)
        for stage, (units, each) in carried.items()
    }


def table(load: Load, pods: Pods) -> str:
    """The plan in Markdown."""
    each = (pods.gateway_sessions, pods.tts_lm_streams, pods.codec_streams, pods.brain_turns, pods.vllm_turns)
    lines = ["| stage | at once | a pod carries | pods |", "|---|---|---|---|"]
    for (stage, (units, count)), capacity in zip(plan(load, pods).items(), each, strict=True):
        lines.append(f"| {stage} | {units:,} | {capacity} | {count} |")
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Print the plan."""
    parser = argparse.ArgumentParser(prog="python -m tools.capacity", description=(__doc__ or "").splitlines()[0])
    for field in (*fields(Load), *fields(Pods)):
        assert isinstance(field.default, int | float)
        parser.add_argument(f"--{field.name.replace('_', '-')}", type=type(field.default), default=field.default)
    given = vars(parser.parse_args(argv))
    print(table(*(kind(**{it.name: given[it.name] for it in fields(kind)}) for kind in (Load, Pods))))
    return 0


if __name__ == "__main__":
    sys.exit(main())
