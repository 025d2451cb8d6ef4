"""`make observe`: Debian's Prometheus over the mesh that runs on this machine, with the project's rules and alerts.

Knows the services' default metrics ports and nothing of what they serve. Stores in a directory that is thrown away.
"""

from __future__ import annotations

import argparse
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import yaml

from cli.addresses import DEFAULT_PORTS
from tools.dashboards.write import ALERTS, MONITORING

METRICS_OFFSET = 1000  # as services place the page beside their port


def configuration(targets: Sequence[str]) -> str:
    """Prometheus' own, for pages at those HOST:PORT."""
    document = {
        "global": {"scrape_interval": "2s", "evaluation_interval": "5s"},
        "rule_files": [str(MONITORING / ALERTS)],
        "scrape_configs": [{"job_name": "voicemesh", "static_configs": [{"targets": list(targets)}]}],
    }
    return yaml.safe_dump(document, sort_keys=False)


def default_targets() -> list[str]:
    """The pages of `make run`."""
    return [f"127.0.0.1:{port + METRICS_OFFSET}" for port in DEFAULT_PORTS.values()]


def main(argv: Sequence[str] | None = None) -> int:
    """Run Prometheus until it is ended; its exit code, or 1 where it is not installed."""
    parser = argparse.ArgumentParser(prog="python -m tools.observe", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--target", action="append", metavar="HOST:PORT", help="a metrics page (default: make run's)")
    parser.add_argument("--listen", default="127.0.0.1:9090", help="where Prometheus itself listens")
    given = parser.parse_args(argv)
    program = shutil.which("prometheus")
    if program is None:
        print("Prometheus is missing: apt-get install --no-install-recommends prometheus", file=sys.stderr)
        return 1
    with tempfile.TemporaryDirectory(prefix="voicemesh-observe-") as directory:
        config = Path(directory, "prometheus.yaml")
        config.write_text(configuration(given.target or default_targets()), encoding="utf-8")
        command = [program, f"--config.file={config}", f"--storage.tsdb.path={directory}/data"]
        command += [f"--web.listen-address={given.listen}", "--enable-feature=exemplar-storage", "--log.level=warn"]
        print(f"http://{given.listen}/graph   alerts: http://{given.listen}/alerts", flush=True)
        process = subprocess.Popen(command)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: process.terminate())
        return process.wait()


if __name__ == "__main__":
    sys.exit(main())
