"""What all tests share: hypothesis without deadlines, and the same examples in every run where CI is set.

Tests that hear, see or call processes in real time are run again when they fail, twice at most, each told in the
summary: a shared machine can stand still for longer than a person may wait. What is broken fails three times.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

if not Path("/dev/nvidia0").exists():
    os.environ.setdefault("TRITON_INTERPRET", "1")  # read when triton is imported: its kernels then run on NumPy

_QUIET = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]}
settings.register_profile("default", **_QUIET)
settings.register_profile("ci", derandomize=True, database=None, **_QUIET)
settings.load_profile("ci" if os.environ.get("CI") else "default")

IN_REAL_TIME = (
    "bench",
    "browser",
    "cli",
    "gateway/livekit",
    "gateway/media",
    "gateway/realtime",
    "gateway/session",
    "mesh",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if item.path.relative_to(here).as_posix().startswith(IN_REAL_TIME):
            item.add_marker(pytest.mark.flaky(reruns=2, reruns_delay=2))
