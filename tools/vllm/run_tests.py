"""Runs the tests under the marker `vllm` with the interpreter that runs this; see `make_env.py`."""

from __future__ import annotations

import os
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
QUIET = {
    "HF_HUB_OFFLINE": "1", "DO_NOT_TRACK": "1", "VLLM_NO_USAGE_STATS": "1", "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_LOGGING_LEVEL": "WARNING", "VLLM_CPU_OMP_THREADS_BIND": "nobind", "OMP_NUM_THREADS": "1",
}  # fmt: skip
"""vLLM's own warnings are its own affair, so they are not errors here; everything else is as in pyproject.toml."""

os.chdir(ROOT)
options = ["-m", "vllm", "-o", "filterwarnings=default", "--timeout", "300", "tests/brain/test_vllm_backend.py"]
os.execve(sys.executable, [sys.executable, "-m", "pytest", *options, *sys.argv[1:]], os.environ | QUIET)
