"""gRPC health, where a watcher that does not read holds up nobody.

grpcio-health-checking 1.85 writes to watchers while it holds the lock that a change of status needs, so that one
stalled connection could stop a drain. Here a change is a plain assignment and an event.
"""

from __future__ import annotations

import asyncio
from typing import Any

from grpc_health.v1 import health_pb2, health_pb2_grpc

from common.errors import UnknownName

NAME = health_pb2.DESCRIPTOR.services_by_name["Health"].full_name
ALIVE = ""
"""The empty name: whether the process lives. A service's own name says whether it is ready."""

_Response = health_pb2.HealthCheckResponse


class Health(health_pb2_grpc.HealthServicer):  # type: ignore[misc] # it comes without types
    """What health says of each name; `say` may be called at any time on the event loop."""

    def __init__(self) -> None:
        self._statuses: dict[str, int] = {ALIVE: _Response.SERVING}
        self._changed = asyncio.Event()

    def say(self, name: str, serving: bool) -> None:
        """That name serves, or it does not."""
        self._statuses[name] = _Response.SERVING if serving else _Response.NOT_SERVING
        self._changed.set()
        self._changed = asyncio.Event()

    async def Check(self, request: Any, context: Any) -> Any:
        """NOT_FOUND for a name that is not served here."""
        if request.service not in self._statuses:
            raise UnknownName("No such service here.", service=request.service[:100])
        return _Response(status=self._statuses[request.service])

    async def Watch(self, request: Any, context: Any) -> None:
        """The status now and after each change; a slow reader is told the latest only."""
        told = None
        while True:
            changed = self._changed
            status = self._statuses.get(request.service, _Response.SERVICE_UNKNOWN)
            if status != told:
                await context.write(_Response(status=status))
                told = status
            else:
                await changed.wait()
