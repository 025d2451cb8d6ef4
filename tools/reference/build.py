"""Build the environment that runs the reference implementation, apart from the project's own.

`python -m tools.reference.build --directory DIR` makes a virtual environment with the PyPI package `qwen-tts` and
exactly the versions it pins, which clash with the project's. Nothing in the ordinary tests needs it: they read stored
references. Refuses to know what is run inside; see `talker.py` beside this file for the talker's references.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import venv
from pathlib import Path

TORCH = "torch==2.13.0"
# The package's own pins (its metadata also asks for torchaudio and gradio, neither needed for the 12 Hz family).
PINNED = ("qwen-tts==0.1.1", "transformers==4.57.3", "huggingface_hub==0.36.0", "tokenizers==0.22.1")
REQUIREMENTS = Path(__file__).with_name("requirements.txt")

# The 25 Hz tokenizer imports torchaudio.compliance.kaldi; no 25 Hz model exists, and torchaudio does not load beside a
# CPU-only torch. Stand-ins of these names satisfy the import; calling into them would fail loudly.
STAND_INS = {
    "torchaudio/__init__.py": '"""Stand-in: only the 25 Hz tokenizer would use torchaudio."""\n',
    "torchaudio/compliance/__init__.py": "",
    "torchaudio/compliance/kaldi.py": '"""Stand-in: only the 25 Hz tokenizer would use this."""\n',
    "sox.py": '"""Stand-in: only the 25 Hz tokenizer would use sox."""\n',
}


def build(directory: Path) -> Path:
    """Make the environment (idempotent) and return its Python."""
    python = directory / "bin" / "python"
    if not python.exists():
        venv.create(directory, with_pip=True)
    install = [str(python), "-m", "pip", "install", "--quiet"]
    subprocess.run([*install, TORCH], check=True)
    subprocess.run([*install, "-r", str(REQUIREMENTS)], check=True)
    subprocess.run([*install, "--no-deps", *PINNED], check=True)
    site = subprocess.run(
        [str(python), "-c", "import sysconfig; print(sysconfig.get_paths()['purelib'])"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout.strip()
    for name, text in STAND_INS.items():
        path = Path(site) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    subprocess.run([str(python), "-c", "import qwen_tts; print('qwen_tts imports')"], check=True)
    return python


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--directory", type=Path, required=True, help="where the environment goes")
    print(build(parser.parse_args().directory))
    return 0


if __name__ == "__main__":
    sys.exit(main())
