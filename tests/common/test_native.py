"""How kernels are compiled: for this processor and these sources, whole or not at all."""

from __future__ import annotations

import ctypes
from pathlib import Path

import pytest

from common import native
from common.native import BuildError, Kernels

SOURCE = 'extern "C" int answer() { return 42; }'
needs_a_compiler = pytest.mark.skipif(native.compiler() is None, reason="there is no C++ compiler here")


@pytest.fixture
def kernels(tmp_path: Path) -> Kernels:
    (tmp_path / "main.cpp").write_text(SOURCE)
    return Kernels("some", tmp_path, "main.cpp")


@needs_a_compiler
def test_what_is_built_can_be_called_and_is_built_once(kernels: Kernels, tmp_path: Path) -> None:
    path = kernels.build(tmp_path / "cache")
    assert ctypes.CDLL(str(path)).answer() == 42
    made = path.stat().st_mtime_ns
    assert kernels.built(tmp_path / "cache") == kernels.build(tmp_path / "cache") == path
    assert path.stat().st_mtime_ns == made


def test_a_library_is_of_its_processor_and_of_its_sources(kernels: Kernels, monkeypatch: pytest.MonkeyPatch) -> None:
    here = kernels.target()
    assert kernels.target() == here
    (kernels.folder / "part.hpp").write_text("// more")
    other = kernels.target()
    monkeypatch.setattr(native, "processor", lambda: "another one")
    assert len({here, other, kernels.target()}) == 3


def test_without_a_compiler_nothing_is_built_and_it_says_so(
    kernels: Kernels, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(native, "compiler", lambda: None)
    assert kernels.built(tmp_path) is None
    with pytest.raises(BuildError, match="no C\\+\\+ compiler"):
        kernels.build(tmp_path)


def test_a_compiler_that_fails_leaves_nothing_behind(
    kernels: Kernels, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(native, "compiler", lambda: "false")
    with pytest.raises(BuildError, match="false failed"):
        kernels.build(tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []
