"""Serving over gRPC: the only part of `common/` that knows it. A service gives its servicers, its engine and its
config.

    def build(server: Server) -> Engine:
        engine = open_engine(...)
        server.add(add_CodecServiceServicer_to_server, CodecServicer(engine), "voicemesh.codec.v1.CodecService")
        return engine

    sys.exit(run_service(load_or_exit(CodecConfig), build))

Handlers raise `MeshError`; the boundary makes statuses of them.
"""

import os
import sys

# grpc reads this when it is imported; without it, its core writes lines of its own into our logs for every lost
# connection. But a caller whose certificate is refused is seen by nobody else: where callers must show one, those lines
# are wanted.
os.environ.setdefault(
    "GRPC_VERBOSITY",
    "INFO"
    if "--tls-client-ca-file" in sys.argv or any(key.endswith("_TLS_CLIENT_CA_FILE") for key in os.environ)
    else "ERROR",
)

from common.serving.calls import draining_error
from common.serving.run import Build, Part, announce, run_service, run_services
from common.serving.server import PortTaken, Server

__all__ = ["Build", "Part", "PortTaken", "Server", "announce", "draining_error", "run_service", "run_services"]
