"""An OTLP collector for tests: takes what exporters send and keeps it."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from queue import SimpleQueue
from typing import Any

import grpc
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2, metrics_service_pb2_grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc


@dataclass(frozen=True)
class SpanSeen:
    """A span as it arrived, with the process that sent it."""

    instance: str
    service: str
    name: str
    trace_id: str
    span_id: str
    parent_id: str
    links: tuple[str, ...]
    attributes: dict[str, Any]


@dataclass
class Sink:
    """What came in. `next_span` waits for the next one."""

    endpoint: str = ""
    spans: list[SpanSeen] = field(default_factory=list)
    metrics: set[str] = field(default_factory=set)
    arrived: SimpleQueue[SpanSeen] = field(default_factory=SimpleQueue)

    def wait_for(self, count: int, name: str) -> list[SpanSeen]:
        """All spans of that name once there are `count`; queue.Empty when they stay away."""
        while len(found := [span for span in self.spans if span.name == name]) < count:
            self.arrived.get(timeout=10)
        return found


class _Traces(trace_service_pb2_grpc.TraceServiceServicer):
    def __init__(self, sink: Sink) -> None:
        self._sink = sink

    def Export(self, request: Any, context: Any) -> Any:
        for resource in request.resource_spans:
            about = {pair.key: pair.value.string_value for pair in resource.resource.attributes}
            for scope in resource.scope_spans:
                for span in scope.spans:
                    seen = SpanSeen(
                        about["service.instance.id"],
                        about["service.name"],
                        span.name,
                        span.trace_id.hex(),
                        span.span_id.hex(),
                        span.parent_span_id.hex(),
                        tuple(link.span_id.hex() for link in span.links),
                        {pair.key: getattr(pair.value, pair.value.WhichOneof("value")) for pair in span.attributes},
                    )
                    self._sink.spans.append(seen)
                    self._sink.arrived.put(seen)
        return trace_service_pb2.ExportTraceServiceResponse()


class _Metrics(metrics_service_pb2_grpc.MetricsServiceServicer):
    def __init__(self, sink: Sink) -> None:
        self._sink = sink

    def Export(self, request: Any, context: Any) -> Any:
        scopes = [scope for resource in request.resource_metrics for scope in resource.scope_metrics]
        self._sink.metrics |= {metric.name for scope in scopes for metric in scope.metrics}
        return metrics_service_pb2.ExportMetricsServiceResponse()


@contextmanager
def otlp_sink() -> Iterator[Sink]:
    """A sink on a free port of this machine."""
    sink = Sink()
    server = grpc.server(ThreadPoolExecutor(2), options=(("grpc.so_reuseport", 0),))
    add_traces: Any = trace_service_pb2_grpc.add_TraceServiceServicer_to_server
    add_metrics: Any = metrics_service_pb2_grpc.add_MetricsServiceServicer_to_server
    add_traces(_Traces(sink), server)
    add_metrics(_Metrics(sink), server)
    sink.endpoint = f"http://127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    try:
        yield sink
    finally:
        server.stop(None).wait()
