"""Every test here runs against every service."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.conformance.dialects import DIALECTS
from tests.conformance.house import House, house


@pytest.fixture(params=sorted(DIALECTS))
def service(request: pytest.FixtureRequest) -> str:
    """Its name."""
    return str(request.param)


@pytest.fixture
async def home(service: str) -> AsyncIterator[House]:
    """A running service; no slot may be in use after the test."""
    async with house(service) as running:
        yield running
        await running.empty()
