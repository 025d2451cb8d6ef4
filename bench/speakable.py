"""What the filter between brain and speech costs per token: `python -m bench.speakable`."""

from __future__ import annotations

import argparse
import re
import sys
import time
from collections.abc import Sequence

from bench.report import Report
from services.gateway.speakable import Normalisation, SpeakableFilter

LIMIT_US = 20.0
WARM_UP_RUNS = 5
PROSE = (
    "Sure, the train leaves at half past nine and takes about two hours. You will want to change in Basel, where the "
    "wait is short; which of the two evenings suits you better? I would take the earlier one, however small the gain.\n"
)
CHINESE = "好的，火车九点半出发，大约需要两个小时。您想在哪一天出发呢？我建议您选早一点的那一班，因为人比较少。\n"
NUMBERS = "It costs $5.50, about 20% less than in 2019, and takes 45 min at 110 km/h, or 2 h 10 min from 9:30 on.\n"
MARKED = (
    "## Options\n\n- **Fast**: `ICE 71`, see [the plan](https://example.org/plan?x=1) 🚄\n- *Slow*: about 3 h\n\n"
    "| from | to |\n|---|---|\n| Bern | Basel |\n\n```python\nprint('no')\n```\n<think>hm</think>Which one? 😀\n"
)
HOSTILE = {"tags": "<a", "brackets": "[", "links": "](", "comments": "<!--", "addresses": "http://", "stars": "*"}


def tokens_of(text: str) -> list[str]:
    """Pieces as a language model's tokenizer cuts them: words with the blank before them, marks, single characters of
    Chinese."""
    return re.findall(r" ?[A-Za-z]+|[\u4e00-\u9fff]{1,2}|\d|[^\w\s]{1,3}|\s", text)


def cost_us(tokens: list[str], normalise: Normalisation) -> float:
    """Microseconds per token of one run through a fresh filter."""
    speakable = SpeakableFilter(normalise)
    began_s = time.perf_counter()
    for token in tokens:
        speakable.feed(token)
    speakable.flush()
    return (time.perf_counter() - began_s) / len(tokens) * 1e6


def costs_us(text: str, runs: int, token_count: int, normalise: Normalisation) -> list[float]:
    """The mean cost of a token in each of several runs, after a warm-up."""
    tokens = tokens_of(text)
    tokens = (tokens * (token_count // len(tokens) + 1))[:token_count]
    for _ in range(WARM_UP_RUNS):
        cost_us(tokens, normalise)
    return [cost_us(tokens, normalise) for _ in range(runs)]


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--tokens", type=int, default=2000, help="in each run (default 2000)")
    arguments = parser.parse_args(argv)
    texts = {"prose": PROSE, "chinese": CHINESE, "markdown": MARKED}
    texts |= {"numbers, read": NUMBERS}
    texts |= {f"hostile {name}": mark * 1000 for name, mark in HOSTILE.items()}
    configuration = {"runs": arguments.runs, "tokens": arguments.tokens, "warm_up": WARM_UP_RUNS, "concurrency": 1}
    report = Report("speakable", configuration)
    worst_us = max(
        report.add(
            "token_us", costs_us(text, arguments.runs, arguments.tokens, "on" if text is NUMBERS else "off"), text=name
        )["p50"]
        for name, text in texts.items()
    )
    print(report.table(), report.write(), sep="\n")
    return 0 if worst_us < LIMIT_US else 1


if __name__ == "__main__":
    sys.exit(main())
