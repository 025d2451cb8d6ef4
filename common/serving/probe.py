"""`python -m common.serving.probe HOST:PORT [SERVICE]` asks gRPC health and exits 0 when it serves, 1 when not.

For whoever cannot ask by itself: Docker's health checks, and Kubernetes where the port wants a certificate. Without a
SERVICE it asks whether the process lives, with one whether that service is ready.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc


def main(argv: Sequence[str] | None = None) -> int:
    """One question, one exit code; what went wrong is a line on standard error."""
    parser = argparse.ArgumentParser(prog="python -m common.serving.probe", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("address", help="HOST:PORT")
    parser.add_argument("service", nargs="?", default="", help="full name, such as voicemesh.codec.v1.CodecService")
    parser.add_argument("--timeout-s", type=float, default=3.0)
    parser.add_argument("--ca", type=Path, metavar="FILE", help="PEM of who signed the server; with it TLS is spoken")
    parser.add_argument("--certificate", type=Path, metavar="FILE", help="PEM chain to show (mTLS)")
    parser.add_argument("--key", type=Path, metavar="FILE", help="PEM key of that certificate")
    parser.add_argument("--name", help="name in the server's certificate; absent: the host")
    given = parser.parse_args(argv)
    if (given.certificate is None) != (given.key is None):
        parser.error("--certificate and --key go together")
    try:
        with _channel(given) as channel:
            request = health_pb2.HealthCheckRequest(service=given.service)
            status = health_pb2_grpc.HealthStub(channel).Check(request, timeout=given.timeout_s).status
    except grpc.RpcError as error:
        print(f"{given.address}: {error.code().name}: {error.details()}", file=sys.stderr)
        return 1
    return 0 if status == health_pb2.HealthCheckResponse.SERVING else 1


def _channel(given: argparse.Namespace) -> grpc.Channel:
    if given.ca is None:
        return grpc.insecure_channel(given.address)
    own = (None, None) if given.key is None else (given.key.read_bytes(), given.certificate.read_bytes())
    named = () if given.name is None else (("grpc.ssl_target_name_override", given.name),)
    return grpc.secure_channel(given.address, grpc.ssl_channel_credentials(given.ca.read_bytes(), *own), named)


if __name__ == "__main__":
    sys.exit(main())
