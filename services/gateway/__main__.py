"""`python -m services.gateway` serves the gateway until told to stop; `--help` lists every setting."""

from __future__ import annotations

import sys

from common.config import load_or_exit
from common.serving import Server, run_service
from services.gateway.config import GatewayConfig
from services.gateway.server import Gateway, register


def main() -> int:
    config = load_or_exit(GatewayConfig)

    def build(server: Server) -> Gateway:
        gateway = Gateway(config)
        register(server, gateway, config)
        return gateway

    return run_service(config, build)


if __name__ == "__main__":
    sys.exit(main())
