"""The four services as tests see them: a configuration, a fake engine, and how it gets behind the edge.

`serving("codec", ToneCodec())` is a real gRPC server on a free port with everything that the real service has.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import services.brain.server
import services.codec.server
import services.gateway.server
import services.tts_lm.server
from common.serving import Server
from common.stream_config import StreamConfig
from common.telemetry import Telemetry
from services.brain.config import BrainConfig
from services.codec.config import CodecConfig
from services.gateway.config import GatewayConfig
from services.gateway.server import Gateway
from services.tts_lm.config import TtsLmConfig
from tests.fakes import ScriptedBrain, ToneCodec, ToneTtsLm


@dataclass(frozen=True)
class ServiceEdge:
    """One service: `register(server, engine, config)` puts an engine behind its edge."""

    config: type[StreamConfig]
    fake: Callable[..., Any]
    register: Callable[[Server, Any, Any], None]


EDGES = {
    "tts_lm": ServiceEdge(TtsLmConfig, ToneTtsLm, services.tts_lm.server.register),
    "codec": ServiceEdge(CodecConfig, ToneCodec, services.codec.server.register),
    "brain": ServiceEdge(BrainConfig, ScriptedBrain, services.brain.server.register),
}


@asynccontextmanager
async def gateway(
    talker: Any = None, codec: Any = None, telemetry: Telemetry | None = None, brain: Any = None, **settings: Any
) -> AsyncIterator[Server]:
    """A real gateway over real stages (with fakes without engines), all in this process; a brain only if given one."""
    async with AsyncExitStack() as stack:
        below = await stack.enter_async_context(serving("tts_lm", talker))
        beside = await stack.enter_async_context(serving("codec", codec))
        settings = {"tts_lm_address": below.address, "codec_address": beside.address, **settings}
        if brain is not None:
            thinking = await stack.enter_async_context(serving("brain", brain))
            settings = {"brain_address": thinking.address, **settings}
        config = GatewayConfig(port=0, metrics=False, **settings)
        async with _serving(config, Gateway(config), services.gateway.server.register, telemetry) as server:
            yield server


@asynccontextmanager
async def serving(
    service: str, engine: Any = None, telemetry: Telemetry | None = None, **settings: Any
) -> AsyncIterator[Server]:
    """That service with that engine (a fake without one), listening on a free port and ready."""
    edge = EDGES[service]
    engine = edge.fake() if engine is None else engine
    config = edge.config(port=0, metrics=False, **settings)
    async with _serving(config, engine, edge.register, telemetry) as server:
        yield server


@asynccontextmanager
async def _serving(
    config: Any, engine: Any, register: Callable[[Server, Any, Any], None], telemetry: Telemetry | None
) -> AsyncIterator[Server]:
    server = Server(config, telemetry)
    register(server, engine, config)
    await server.start()
    try:
        await engine.start()
        await server.set_ready(True)
        yield server
    finally:
        await server.stop()
        await engine.close()
