"""Who takes traces and measures by OTLP, over gRPC or HTTP: as configured, else as the standard variables say."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Literal

from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.metrics.export import MetricExporter
from opentelemetry.sdk.trace.export import SpanExporter

Protocol = Literal["grpc", "http/protobuf"]


@dataclass(frozen=True)
class Exporters:
    """What sends each signal; None where it has nowhere to go."""

    spans: SpanExporter | None = None
    metrics: MetricExporter | None = None

    def shutdown(self) -> None:
        """Give up what is on its way, retries included."""
        for exporter in (self.spans, self.metrics):
            if exporter is not None:
                exporter.shutdown()


def exporters(endpoint: str | None, protocol: Protocol | None) -> Exporters:
    """`endpoint` is a collector's URL, such as http://127.0.0.1:4317 (gRPC) or :4318 (HTTP); the rest of the standard's
    variables (headers, TLS, time-outs) hold for both."""
    return Exporters(
        _spans(endpoint, protocol) if _goes_somewhere(endpoint, "TRACES") else None,
        _metrics(endpoint, protocol) if _goes_somewhere(endpoint, "METRICS") else None,
    )


def _goes_somewhere(endpoint: str | None, signal: str) -> bool:
    keys = ("OTEL_EXPORTER_OTLP_ENDPOINT", f"OTEL_EXPORTER_OTLP_{signal}_ENDPOINT")
    return endpoint is not None or any(os.environ.get(key) for key in keys)


def _is_http(protocol: str | None, signal: str) -> bool:
    keys = (f"OTEL_EXPORTER_OTLP_{signal}_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
    named = [protocol, *map(os.environ.get, keys), "grpc"]
    return next(filter(None, named)).startswith("http")


def _spans(endpoint: str | None, protocol: Protocol | None) -> SpanExporter:
    if not _is_http(protocol, "TRACES"):
        return OTLPSpanExporter(endpoint=endpoint)
    # Only who asks for HTTP pays for its client.
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as HttpSpanExporter

    return HttpSpanExporter(endpoint=_path(endpoint, "traces"))


def _metrics(endpoint: str | None, protocol: Protocol | None) -> MetricExporter:
    if not _is_http(protocol, "METRICS"):
        return OTLPMetricExporter(endpoint=endpoint)
    from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter as HttpMetricExporter

    return HttpMetricExporter(endpoint=_path(endpoint, "metrics"))


def _path(endpoint: str | None, signal: str) -> str | None:
    return None if endpoint is None else f"{endpoint.rstrip('/')}/v1/{signal}"
