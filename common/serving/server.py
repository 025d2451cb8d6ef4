"""A gRPC server with everything that every service of the mesh has: health, reflection, channelz, TLS, limits,
draining."""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
from collections.abc import Callable
from typing import Any

import grpc
from grpc_channelz.v1 import channelz
from grpc_health.v1 import health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from common.config import ServiceConfig
from common.serving.boundary import Admission, Boundary
from common.serving.calls import Calls
from common.serving.health import ALIVE, NAME, Health
from common.telemetry import Telemetry

logger = logging.getLogger(__name__)

# What grpc itself takes: above every limit of a method, so that those can answer with a sentence instead of a cut.
_TRANSPORT_MAX_BYTES = 20 * 1024 * 1024
_SPARE_STREAMS = 1000
_CUT_S = 2.0  # a call that does not end within this of its cancellation is broken
_OPTIONS: tuple[tuple[str, int], ...] = (
    # Two servers on one port would share its connections between them, silently.
    ("grpc.so_reuseport", 0),
    ("grpc.max_receive_message_length", _TRANSPORT_MAX_BYTES),
    ("grpc.max_send_message_length", _TRANSPORT_MAX_BYTES),
    # A stream may be silent for minutes: ask whether the other side still lives, and let it ask us as often.
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
    # Who connects and says nothing is let go.
    ("grpc.server_handshake_timeout_ms", 10_000),
)


class PortTaken(Exception):
    """Nobody can listen there; the message is a sentence for a person."""


class Server:
    """One service's server. `add` what it serves, `start` it, say `ready`, and in the end `drain` and `stop`."""

    def __init__(self, config: ServiceConfig, telemetry: Telemetry | None = None) -> None:
        self.config = config
        self.telemetry = telemetry or Telemetry.off()
        self.draining = asyncio.Event()
        self.failed = asyncio.Event()
        self.announcement: dict[str, str] = {}
        self._names: list[str] = []
        self._request_limits: dict[str, int] = {}
        self._calls = Calls(config.max_streams)
        self._boundary = Boundary(self._calls, self.telemetry, self._limit_of)
        self._health = Health()
        # More than we serve, so that who is one too many hears it instead of waiting in its own client.
        options = (*_OPTIONS, ("grpc.max_concurrent_streams", config.max_streams + _SPARE_STREAMS))
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

    @property
    def admission(self) -> Admission:
        """Who may call; everybody, unless the service says."""
        return self._boundary.admission

    @admission.setter
    def admission(self, admission: Admission) -> None:
        self._boundary.admission = admission

    async def idle(self) -> None:
        """Return when none of them runs."""
        await self._calls.wait_idle()

    def add(self, register: Callable[[Any, Any], None], servicer: object, name: str, **max_request_bytes: int) -> None:
        """Serve `name` (a full name such as voicemesh.codec.v1.CodecService) with the generated `add_…_to_server`.

        Keywords are methods that take larger or smaller requests than the configuration says, as `Encode=16 * 2**20`.
        """
        register(servicer, self._server)
        self._names.append(name)
        self._health.say(name, False)
        self._boundary.own.add(name)
        self._request_limits |= {f"/{name}/{method}": limit for method, limit in max_request_bytes.items()}

    async def start(self) -> None:
        """Listen and answer health: alive, not ready. PortTaken when somebody else listens there."""
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        infrastructure = [NAME]
        if self.config.answers_channelz:
            channelz.add_channelz_servicer(self._server)
            infrastructure.append("grpc.channelz.v1.Channelz")
        if self.config.answers_reflection:
            reflection.enable_server_reflection((*self._names, *infrastructure, reflection.SERVICE_NAME), self._server)
        self._port = self._listen()
        await self._server.start()

    async def set_ready(self, ready: bool) -> None:
        """Whether new calls are taken, and what health says under the service's own name."""
        self._calls.ready = ready
        for name in self._names:
            self._health.say(name, ready)

    async def fail(self, why: str) -> None:
        """As `give_up`."""
        self.give_up(why)

    def give_up(self, why: str) -> None:
        """The device failed or an invariant broke for good: neither ready nor alive, and `run_service` ends with 1."""
        logger.critical("service broke", extra={"why": why})
        self._calls.draining = True
        for name in (ALIVE, *self._names):
            self._health.say(name, False)
        self.failed.set()

    async def drain(self, deadline_s: float) -> None:
        """Stop being ready, refuse new calls, let running ones finish until the deadline, then end them."""
        self._calls.draining = True
        self.draining.set()
        for name in self._names:
            self._health.say(name, False)
        logger.info("draining", extra={"running": self.running_count, "deadline_s": deadline_s})
        try:
            await asyncio.wait_for(self._calls.wait_idle(), deadline_s)
        except TimeoutError:
            logger.warning("drain deadline passed", extra={"running": self.running_count})
            await self._cut()

    async def stop(self) -> None:
        """End whatever still runs and close the port."""
        self._calls.draining = True
        await self._cut()
        await self._server.stop(None)

    async def _cut(self) -> None:
        self._calls.cut()
        try:
            await asyncio.wait_for(self._calls.wait_idle(), _CUT_S)
        except TimeoutError:
            logger.error("calls resist their end", extra={"running": self.running_count})

    def _limit_of(self, method: str) -> int:
        return self._request_limits.get(method, self.config.max_request_bytes)

    def _listen(self) -> int:
        host, port = self.config.host, self.config.port
        credentials = _credentials(self.config)
        try:
            if credentials is None:
                return self._server.add_insecure_port(_joined(host, port))
            return self._server.add_secure_port(_joined(host, port), credentials)
        except RuntimeError:
            raise PortTaken(_why_not(host, port)) from None


def _why_not(host: str, port: int) -> str:
    """Why nobody can listen there: grpc only says that it failed."""
    try:
        with socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET):
            return f"Port {port} on {host} is free, but not for this server; are its TLS files valid?"
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            return f"Port {port} on {host} is taken by another program."
        return f"Nobody can listen on port {port} of {host}: {error.strerror}."


def _credentials(config: ServiceConfig) -> grpc.ServerCredentials | None:
    if config.tls_certificate_file is None or config.tls_key_file is None:
        return None
    pair = (config.tls_key_file.read_bytes(), config.tls_certificate_file.read_bytes())
    roots = None if config.tls_client_ca_file is None else config.tls_client_ca_file.read_bytes()
    return grpc.ssl_server_credentials([pair], root_certificates=roots, require_client_auth=roots is not None)


def _joined(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
