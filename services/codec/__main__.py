"""`python -m services.codec --model DIR` serves the codec until told to stop; `--help` lists every setting."""

from __future__ import annotations

import sys

from common.config import load_or_exit
from common.serving import Build, Server, run_service
from services.codec.config import CodecConfig
from services.codec.engine import Engine, open_engine
from services.codec.server import register


def builder(config: CodecConfig) -> Build:
    """What makes the engine and serves it."""

    def build(server: Server) -> Engine:
        engine = open_engine(config.settings, server.telemetry.observer("codec"))
        engine.on_broken = server.give_up
        register(server, engine, config, config.max_reference_bytes)
        return engine

    return build


def main() -> int:
    config = load_or_exit(CodecConfig)
    return run_service(config, builder(config))


if __name__ == "__main__":
    sys.exit(main())
