"""Engine, kernels and GPU benchmark on a machine that has torch, NumPy and gRPC, and nothing else of ours."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

BLOCKED = "pydantic pydantic_settings opentelemetry prometheus_client aiohttp aiortc livekit openai httpx2 triton"
SCRIPT = """
import sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {blocked!r}.split():
            raise ModuleNotFoundError(name + " is not on this machine", name=name.partition(".")[0])

sys.meta_path.insert(0, Absent())
try:
    import pydantic
except ModuleNotFoundError:
    pass
else:
    raise SystemExit("nothing was blocked")
import services.tts_lm.engine, services.tts_lm.load, common.graphs
from bench.talker_gpu import main
sys.exit(main(["parity", "--model", sys.argv[1], "--device", "cpu", "--frames", "3"]))
"""


def test_the_engine_runs_where_pydantic_opentelemetry_and_triton_are_absent(tiny: Path) -> None:
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    command = [sys.executable, "-c", SCRIPT.format(blocked=BLOCKED), str(tiny)]
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr[-2000:]
    assert '"row_in_company_is_row_alone": true' in ran.stdout
