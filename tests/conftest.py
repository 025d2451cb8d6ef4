"""What all tests share: hypothesis without deadlines, and the same examples in every run where CI is set."""

from __future__ import annotations

import os
from pathlib import Path

from hypothesis import HealthCheck, settings

if not Path("/dev/nvidia0").exists():
    os.environ.setdefault("TRITON_INTERPRET", "1")  # read when triton is imported: its kernels then run on NumPy

_QUIET = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]}
settings.register_profile("default", **_QUIET)
settings.register_profile("ci", derandomize=True, database=None, **_QUIET)
settings.load_profile("ci" if os.environ.get("CI") else "default")
