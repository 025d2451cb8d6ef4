"""Generate the Python side of `protos/` into `gen/`: messages, stubs and their types.

Runs wherever grpcio-tools is installed: by `make protos`, and by `setup.py` when the package is built, so that
`pip install .` needs nothing else. Does nothing when `gen/` is newer than every proto.
"""

from __future__ import annotations

import shutil
import sys
from importlib import resources
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PROTOS = ROOT / "protos"
GEN = ROOT / "gen"
STAMP = GEN / ".stamp"


def sources() -> list[Path]:
    """Our own protos, in a stable order."""
    return sorted((PROTOS / "voicemesh").rglob("*.proto"))


def is_fresh() -> bool:
    """Whether `gen/` was made after the last change of any proto or of this file."""
    newest = max(p.stat().st_mtime for p in [*sources(), Path(__file__)])
    return STAMP.exists() and STAMP.stat().st_mtime > newest


def fetch_imports() -> None:
    """Lay google/rpc/status.proto, which a package carries, where buf finds it."""
    import google.rpc  # googleapis-common-protos

    target = PROTOS / "third_party" / "google" / "rpc"
    target.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(Path(google.rpc.__path__[0]) / "status.proto", target / "status.proto")


def generate() -> None:
    """Run protoc over every proto; raises RuntimeError when it fails."""
    from grpc_tools import protoc

    fetch_imports()
    shutil.rmtree(GEN, ignore_errors=True)
    GEN.mkdir()
    includes = [PROTOS, PROTOS / "third_party", resources.files("grpc_tools") / "_proto"]
    arguments = [
        "protoc",
        *(f"-I{include}" for include in includes),
        *(f"--{kind}_out={GEN}" for kind in ("python", "pyi", "grpc_python")),
        *(str(source) for source in sources()),
    ]
    if protoc.main(arguments) != 0:
        raise RuntimeError("protoc failed; its messages stand above")
    for folder in [GEN / "voicemesh", *(d for d in (GEN / "voicemesh").rglob("*") if d.is_dir())]:
        (folder / "__init__.py").touch()
    (GEN / "voicemesh" / "py.typed").touch()
    STAMP.touch()


def main() -> None:
    """Generate unless everything is fresh; `--force` generates anyway."""
    if "--force" in sys.argv or not is_fresh():
        generate()


if __name__ == "__main__":
    main()
