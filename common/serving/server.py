"""A gRPC server with everything that every service of the mesh has: health, reflection, channelz, TLS, limits,
draining."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

import grpc
from grpc_channelz.v1 import channelz
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1._async import HealthServicer
from grpc_reflection.v1alpha import reflection

from common.config import ServiceConfig
from common.serving.boundary import TRANSPORT_MAX_BYTES, Boundary, Calls
from common.telemetry import Telemetry

logger = logging.getLogger(__name__)

_SERVING = health_pb2.HealthCheckResponse.SERVING
_NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
_OPTIONS: tuple[tuple[str, int], ...] = (
    # Two servers on one port would share its connections between them, silently.
    ("grpc.so_reuseport", 0),
    ("grpc.max_receive_message_length", TRANSPORT_MAX_BYTES),
    ("grpc.max_send_message_length", TRANSPORT_MAX_BYTES),
    # A stream may be silent for minutes: ask whether the other side still lives, and let it ask us as often.
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
)


class PortTaken(Exception):
    """Nobody can listen there; the message is a sentence for a person."""


class Server:
    """One service's server. `add` what it serves, `start` it, say `ready`, and in the end `drain` and `stop`."""

    def __init__(self, config: ServiceConfig, telemetry: Telemetry | None = None) -> None:
        self.config = config
        self.telemetry = telemetry or Telemetry.off()
        self.draining = asyncio.Event()
        self.announcement: dict[str, str] = {}
        self._names: list[str] = []
        self._request_limits: dict[str, int] = {}
        self._calls = Calls(config.max_streams)
        self._boundary = Boundary(self._calls, self.telemetry, self._limit_of)
        self._health = HealthServicer()
        options = (*_OPTIONS, ("grpc.max_concurrent_streams", config.max_streams))
        self._server = grpc.aio.server(interceptors=[self._boundary], options=options)
        self._port = 0

    @property
    def port(self) -> int:
        """The port that is listened on; 0 before `start`."""
        return self._port

    @property
    def address(self) -> str:
        """What a caller on this machine dials."""
        return _joined(self.config.host, self._port)

    @property
    def running_count(self) -> int:
        """Calls of the service's own methods that run now."""
        return self._calls.running_count

    def add(self, register: Callable[[Any, Any], None], servicer: object, name: str, **max_request_bytes: int) -> None:
        """Serve `name` (a full name such as voicemesh.codec.v1.CodecService) with the generated `add_…_to_server`.

        Keywords are methods that take larger or smaller requests than the configuration says, as `Encode=16 * 2**20`.
        """
        register(servicer, self._server)
        self._names.append(name)
        self._boundary.own.add(name)
        self._request_limits |= {f"/{name}/{method}": limit for method, limit in max_request_bytes.items()}

    async def start(self) -> None:
        """Listen and answer health: alive, not ready. PortTaken when somebody else listens there."""
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        for name in self._names:
            await self._health.set(name, _NOT_SERVING)
        infrastructure = [health_pb2.DESCRIPTOR.services_by_name["Health"].full_name]
        if self.config.channelz:
            channelz.add_channelz_servicer(self._server)
            infrastructure.append("grpc.channelz.v1.Channelz")
        if self.config.reflection:
            reflection.enable_server_reflection((*self._names, *infrastructure, reflection.SERVICE_NAME), self._server)
        self._port = self._listen()
        await self._server.start()

    async def set_ready(self, ready: bool) -> None:
        """Whether new calls are taken, and what health says under the service's own name."""
        self._calls.ready = ready
        for name in self._names:
            await self._health.set(name, _SERVING if ready else _NOT_SERVING)

    async def set_broken(self) -> None:
        """The device failed or an invariant broke for good: neither ready nor alive, so that something restarts us."""
        await self.set_ready(False)
        await self._health.set("", _NOT_SERVING)

    async def drain(self, deadline_s: float) -> None:
        """Stop being ready, refuse new calls, let running ones finish until the deadline, then end them."""
        self._calls.draining = True
        self.draining.set()
        for name in self._names:
            await self._health.set(name, _NOT_SERVING)
        logger.info("draining", extra={"running": self.running_count, "deadline_s": deadline_s})
        try:
            await asyncio.wait_for(self._calls.wait_idle(), deadline_s)
        except TimeoutError:
            logger.warning("drain deadline passed", extra={"running": self.running_count})
            self._calls.cut()
            await self._calls.wait_idle()

    async def stop(self) -> None:
        """Close the port and whatever still runs."""
        await self._server.stop(None)

    def _limit_of(self, method: str) -> int:
        return self._request_limits.get(method, self.config.max_request_bytes)

    def _listen(self) -> int:
        address = _joined(self.config.host, self.config.port)
        credentials = _credentials(self.config)
        try:
            if credentials is None:
                return self._server.add_insecure_port(address)
            return self._server.add_secure_port(address, credentials)
        except RuntimeError:
            raise PortTaken(f"Port {address} cannot be listened on: is something else there already?") from None


def _credentials(config: ServiceConfig) -> grpc.ServerCredentials | None:
    if config.tls_certificate_file is None or config.tls_key_file is None:
        return None
    pair = (config.tls_key_file.read_bytes(), config.tls_certificate_file.read_bytes())
    roots = None if config.tls_client_ca_file is None else config.tls_client_ca_file.read_bytes()
    return grpc.ssl_server_credentials([pair], root_certificates=roots, require_client_auth=roots is not None)


def _joined(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
