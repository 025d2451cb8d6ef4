"""`python -m tools.dashboards` writes deploy/monitoring/: three dashboards for Grafana, and the alerts as an object of
the Prometheus operator."""

from __future__ import annotations

import sys
from pathlib import Path

from tools.dashboards.write import MONITORING, outputs


def main(directory: Path = MONITORING) -> int:
    """Write what differs, and say so."""
    for name, text in outputs().items():
        path = directory / name
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")
            print(f"wrote {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
