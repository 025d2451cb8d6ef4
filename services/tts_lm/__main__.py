"""`python -m services.tts_lm --model DIR` serves the talker until told to stop; `--help` lists every setting."""

from __future__ import annotations

import sys

from common.config import load_or_exit
from common.serving import Build, Server, run_service
from common.voice_store import VoiceStore
from services.tts_lm.config import TtsLmConfig
from services.tts_lm.server import register
from services.tts_lm.types import Engine


def builder(config: TtsLmConfig) -> Build:
    """What makes the engine and serves it."""

    def build(server: Server) -> Engine:
        from services.tts_lm.load import create_engine  # torch, not before the configuration is known to be right

        engine = create_engine(config.options, server.telemetry.observer("tts_lm"))
        engine.on_broken = server.give_up
        register(server, engine, config, VoiceStore(config.voice_store))
        return engine

    return build


def main() -> int:
    config = load_or_exit(TtsLmConfig)
    return run_service(config, builder(config))


if __name__ == "__main__":
    sys.exit(main())
