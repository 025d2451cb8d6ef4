"""The offline brain behind the conformance suite."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from services.brain.admission import BrainEngine
from services.brain.backends.offline import OfflineBackend
from services.brain.limits import BrainLimits
from services.brain.options import OfflineOptions
from tests.brain.conformance import Conformance
from tests.brain.home import Home

LIMITS = BrainLimits(slot_count=4, check_interval_s=0.05)


@pytest.fixture
async def home() -> AsyncIterator[Home]:
    backend = OfflineBackend(OfflineOptions(tokens_per_s=2000.0))
    engine = BrainEngine(backend, LIMITS)
    await engine.start()
    yield Home(
        engine,
        ask="count to thirty",
        call='use the tool clock with {"zone": "UTC"}',
        kill=backend.close,
        revive=backend.start,
    )
    await engine.close()


class TestOffline(Conformance):
    pass
