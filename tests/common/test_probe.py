"""The probe that others run: its exit code is what health says."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from common.serving.probe import main
from tests.common.service import NAME, Servicer, echo, serving
from tests.common.test_serving import keys, secured

__all__ = ["keys"]


async def asked(*arguments: str) -> int:
    return await asyncio.to_thread(main, arguments)


async def test_the_exit_code_is_what_health_says() -> None:
    async with serving(Servicer(echo)) as (server, _):
        assert await asked(server.address, NAME) == 0
        assert await asked(server.address) == 0
        await server.set_ready(False)
        assert await asked(server.address, NAME) == 1
        assert await asked(server.address) == 0


async def test_nobody_there_and_a_name_that_nobody_serves_are_no_health(capsys: pytest.CaptureFixture[str]) -> None:
    async with serving(Servicer(echo)) as (server, _):
        assert await asked(server.address, "voicemesh.nobody.v1.NobodyService") == 1
        address = server.address
    assert await asked(address, "--timeout-s", "1") == 1
    told = capsys.readouterr().err
    assert "NOT_FOUND" in told
    assert address in told


async def test_a_port_that_wants_a_certificate_is_asked_with_one(keys: Path) -> None:
    own = ("--ca", str(keys / "ca.pem"), "--certificate", str(keys / "caller.pem"), "--key", str(keys / "caller.key"))
    async with serving(Servicer(echo), secured(keys, mutual=True)) as (server, _):
        assert await asked(server.address, NAME, *own) == 0
        assert await asked(server.address, NAME, *own, "--name", "localhost") == 0
        assert await asked(server.address, NAME, "--ca", str(keys / "ca.pem"), "--timeout-s", "1") == 1
        assert await asked(server.address, NAME, "--timeout-s", "1") == 1
