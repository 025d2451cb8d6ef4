"""`python -m tools.dashboards.types` checks the committed dashboards against Grafana's own types, with npm's
`@grafana/schema` and TypeScript in a directory that is thrown away. Needs node, npm and a registry."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from tools.dashboards.write import MONITORING

PACKAGES = ("@grafana/schema@13.2.3", "typescript@5.9")
# JSON holds the values of Grafana's enumerations, not their names: `Json` accepts those.
_HEAD = """import type { Dashboard } from "@grafana/schema";
type Json<T> = T extends string ? `${T}` : T extends (infer I)[] ? Json<I>[]
  : T extends object ? { [K in keyof T]: Json<T[K]> } : T;
export const it: Json<Dashboard> = """
_FLAGS = ("--noEmit", "--strict", "--skipLibCheck", "--moduleResolution", "node", "--target", "es2022")


def main() -> int:
    """The compiler's exit code."""
    with tempfile.TemporaryDirectory() as directory:
        where = Path(directory)
        subprocess.run(["npm", "install", "--silent", "--no-audit", "--no-fund", *PACKAGES], cwd=where, check=True)
        for path in sorted((MONITORING / "dashboards").glob("*.json")):
            (where / f"{path.stem}.ts").write_text(_HEAD + path.read_text(encoding="utf-8"), encoding="utf-8")
        sources = [path.name for path in where.glob("*.ts")]
        return subprocess.run(["node_modules/.bin/tsc", *_FLAGS, *sources], cwd=where).returncode


if __name__ == "__main__":
    sys.exit(main())
