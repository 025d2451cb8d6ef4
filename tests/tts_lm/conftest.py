"""A tiny random checkpoint, and the talker over it as a client meets it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from cli.checkpoint.random import write_random
from common.native import compiler
from services.tts_lm.engine import EngineOptions, TalkerEngine
from services.tts_lm.load import create_engine
from services.tts_lm.native import KERNELS
from services.tts_lm.native.library import Library
from tests.tts_lm.wire import Client, client

Opened = Callable[..., AbstractAsyncContextManager[Client]]
on_both = pytest.mark.parametrize("kernels", ["torch", "native"], indirect=True)


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_random(tmp_path_factory.mktemp("tiny"), "tiny", "custom_voice", 0)


@pytest.fixture(scope="session")
def tiny_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_random(tmp_path_factory.mktemp("tiny-base"), "tiny", "base", 7)


@asynccontextmanager
async def running(model: Path, **options: Any) -> AsyncIterator[TalkerEngine]:
    engine = create_engine(EngineOptions(str(model), **{"slot_count": 2, "kv_positions": 4096} | options))
    await engine.start()
    try:
        yield engine
    finally:
        await engine.close()


@asynccontextmanager
async def serve(model: Path, **options: Any) -> AsyncIterator[Client]:
    """The real service over a real engine on that checkpoint."""
    engine = create_engine(EngineOptions(str(model), **{"slot_count": 2, "kv_positions": 4096} | options))
    try:
        async with client(engine) as one:
            yield one
    finally:
        await engine.close()


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Library:
    """The compiled kernels: those of this user's cache, else compiled for this session. A race needs two threads."""
    if compiler() is None and KERNELS.built() is None:
        pytest.skip("the native kernels need a C++ compiler, and there is none here")
    return Library(KERNELS.built() or KERNELS.build(tmp_path_factory.mktemp("kernels")), 2)


@pytest.fixture
def kernels(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """What `EngineOptions.kernels` is to be; tests marked `on_both` run on the compiled kernels too."""
    asked: str = getattr(request, "param", "torch")
    if asked == "native":
        library: Library = request.getfixturevalue("library")
        monkeypatch.setattr("services.tts_lm.kernels.KERNELS", SimpleNamespace(built=lambda: library.path))
    return asked


@pytest.fixture
async def talker(tiny: Path, kernels: str) -> AsyncIterator[Client]:
    async with serve(tiny, kernels=kernels) as one:
        yield one
