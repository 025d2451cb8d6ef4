"""An OTLP collector for tests: keeps the spans that it is sent, in this process."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc


@dataclass(frozen=True)
class SpanSeen:
    """One span as it arrived; ids in hex, links as (trace id, span id)."""

    service: str
    name: str
    trace_id: str
    span_id: str
    parent_id: str
    events: tuple[str, ...]
    attributes: dict[str, Any]
    links: tuple[tuple[str, str], ...]
    event_times_s: dict[str, float] = field(default_factory=dict)


@dataclass
class Sink:
    """Where it listens, and what has come."""

    endpoint: str = ""
    spans: list[SpanSeen] = field(default_factory=list)
    news: asyncio.Event = field(default_factory=asyncio.Event)

    def trace(self, trace_id: str) -> dict[str, SpanSeen]:
        """The spans of a trace by name; the last one of a name counts."""
        return {span.name: span for span in self.spans if span.trace_id == trace_id}

    async def wait_for_roots(self, name: str, count: int, timeout_s: float = 15.0) -> list[SpanSeen]:
        """The spans of that name that have no parent, in the order in which they came, once there are so many."""
        async with asyncio.timeout(timeout_s):
            while len(found := [it for it in self.spans if it.name == name and not it.parent_id]) < count:
                self.news.clear()
                await self.news.wait()
        return found

    async def wait_for(self, trace_id: str, *names: str, timeout_s: float = 15.0) -> dict[str, SpanSeen]:
        """Until a trace holds spans of these names."""
        async with asyncio.timeout(timeout_s):
            while not set(names) <= self.trace(trace_id).keys():
                self.news.clear()
                await self.news.wait()
        return self.trace(trace_id)


class _Collector(trace_service_pb2_grpc.TraceServiceServicer):  # type: ignore[misc]
    def __init__(self, sink: Sink) -> None:
        self._sink = sink

    async def Export(self, request: Any, context: Any) -> Any:
        for resource in request.resource_spans:
            service = {a.key: a.value.string_value for a in resource.resource.attributes}["service.name"]
            for scope in resource.scope_spans:
                self._sink.spans += [_seen(service, span) for span in scope.spans]
        self._sink.news.set()
        return trace_service_pb2.ExportTraceServiceResponse()


def _seen(service: str, span: Any) -> SpanSeen:
    return SpanSeen(
        service=service,
        name=span.name,
        trace_id=span.trace_id.hex(),
        span_id=span.span_id.hex(),
        parent_id=span.parent_span_id.hex(),
        events=tuple(event.name for event in span.events),
        attributes={a.key: getattr(a.value, a.value.WhichOneof("value")) for a in span.attributes},
        links=tuple((link.trace_id.hex(), link.span_id.hex()) for link in span.links),
        event_times_s={event.name: event.time_unix_nano / 1e9 for event in span.events},
    )


@asynccontextmanager
async def sink() -> AsyncIterator[Sink]:
    """A collector on a free port of this machine."""
    server, seen = grpc.aio.server(), Sink()
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(_Collector(seen), server)
    seen.endpoint = f"http://127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    await server.start()
    try:
        yield seen
    finally:
        await server.stop(None)
