"""`voicemesh doctor`: what this machine can run and what is missing, in sentences."""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cli.doctor import Finding

_MARKS = {"ok": "ok     ", "note": "note   ", "missing": "MISSING"}


def register(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser("doctor", help="what this machine can run, and what is missing")
    parser.add_argument("--json", action="store_true")
    parser.set_defaults(run=run_doctor)


def run_doctor(args: argparse.Namespace) -> int:
    from cli.doctor import examine

    return report(examine(), args.json)


def report(examined: Iterable[Finding], as_json: bool) -> int:
    """Print findings as they come, or all as one JSON object; exit code 0 unless something needed is missing."""
    findings = []
    for finding in examined:
        findings.append(finding)
        if not as_json:
            print(f"{_MARKS[finding.state]}  {finding.sentence}", flush=True)
    healthy = all(finding.state != "missing" for finding in findings)
    if as_json:
        print(json.dumps({"healthy": healthy, "findings": [dataclasses.asdict(each) for each in findings]}))
    return 0 if healthy else 1
