"""What all tests share: hypothesis without deadlines, and the same examples in every run where CI is set."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

_QUIET = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]}
settings.register_profile("default", **_QUIET)
settings.register_profile("ci", derandomize=True, database=None, **_QUIET)
settings.load_profile("ci" if os.environ.get("CI") else "default")
