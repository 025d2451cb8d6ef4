"""A service whose device failed says so in its health, and its process ends so that somebody starts another."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from services.codec.config import CodecConfig
from services.tts_lm.config import TtsLmConfig


@pytest.mark.parametrize("config", [CodecConfig, TtsLmConfig])
async def test_engines_tell_their_server(config: Any) -> None:
    from common.serving import Server
    from common.telemetry import Telemetry

    server = Server(config(port=0, metrics=False), Telemetry.off())
    if config is CodecConfig:
        from services.codec.__main__ import builder

        engine: Any = builder(config())(server)
    else:
        from services.tts_lm.__main__ import builder as build_talker

        engine = build_talker(config())(server)
    engine.on_broken("the device failed")
    await asyncio.wait_for(server.failed.wait(), 5)
    await server.stop()
