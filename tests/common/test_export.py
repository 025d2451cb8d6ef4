"""OTLP over HTTP: the same spans and measures as over gRPC, and the same end when nobody listens."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from common.telemetry import SpanName, Telemetry, TelemetrySettings


class Sink(ThreadingHTTPServer):
    """A collector over HTTP on a free port; keeps what each path was sent."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Taker)
        self.bodies: dict[str, bytes] = {}

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Taker(BaseHTTPRequestHandler):
    server: Sink

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.headers.get("Content-Encoding") == "gzip":
            import gzip

            body = gzip.decompress(body)
        self.server.bodies[self.path] = body
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def sink() -> Iterator[Sink]:
    with Sink() as it:
        thread = threading.Thread(target=it.serve_forever)
        thread.start()
        yield it
        it.shutdown()
        thread.join()


def tell(settings: TelemetrySettings) -> None:
    telemetry = Telemetry.open(settings)
    telemetry.observer("codec").step(0.004, 3)
    telemetry.utterance(SpanName.CODEC_DECODE, session_id="s").end("COMPLETED")
    telemetry.close()


def assert_all_came(sink: Sink) -> None:
    traces = ExportTraceServiceRequest.FromString(sink.bodies["/v1/traces"])
    metrics = ExportMetricsServiceRequest.FromString(sink.bodies["/v1/metrics"])
    assert [span.name for span in traces.resource_spans[0].scope_spans[0].spans] == ["codec.decode"]
    told = {metric.name for metric in metrics.resource_metrics[0].scope_metrics[0].metrics}
    assert "voicemesh.codec.step.duration" in told


def test_what_is_told_arrives_over_http(sink: Sink) -> None:
    tell(TelemetrySettings("codec", otlp_endpoint=sink.endpoint, otlp_protocol="http/protobuf"))
    assert_all_came(sink)


def test_the_standard_variables_choose_http_too(sink: Sink, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", sink.endpoint)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")
    tell(TelemetrySettings("codec"))
    assert_all_came(sink)


def test_an_http_collector_that_is_away_holds_up_no_shutdown() -> None:
    before = set(threading.enumerate())
    started = time.monotonic()
    tell(TelemetrySettings("codec", otlp_endpoint="http://127.0.0.1:9", otlp_protocol="http/protobuf"))
    took_s = time.monotonic() - started
    left = [thread for thread in threading.enumerate() if thread not in before and "Otel" in thread.name]
    for thread in left:
        thread.join(1)
    assert took_s < 8
    assert not any(thread.is_alive() for thread in left)
