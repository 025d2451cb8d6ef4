"""Programs of the system that tests of deploy/ need: where CI runs they must be there, elsewhere a skip says how to get
them."""

from __future__ import annotations

import os
import shutil
import subprocess

import pytest

PACKAGES = {"promtool": "prometheus", "nginx": "nginx", "prometheus": "prometheus"}


def program(name: str) -> str:
    """The path of that program."""
    found = shutil.which(name, path=os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/bin"]))
    if found is None:
        package = PACKAGES.get(name)
        how = f"apt-get install --no-install-recommends {package}" if package else "see docs/operations.md"
        sentence = f"{name} is missing: {how}"
        pytest.fail(sentence) if os.environ.get("CI") else pytest.skip(sentence)
    return found


def run(name: str, *arguments: str, timeout_s: float = 60.0) -> str:
    """What it prints; its standard error is the message of the failure when it ends with anything but 0."""
    done = subprocess.run([program(name), *arguments], capture_output=True, text=True, timeout=timeout_s)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
