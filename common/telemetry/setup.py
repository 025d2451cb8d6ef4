"""Where traces and measures go: an OTLP endpoint when one is configured, a Prometheus page when asked for, or
nowhere."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from dataclasses import dataclass
from threading import Thread
from typing import Any

from opentelemetry.context import Context
from opentelemetry.metrics import MeterProvider as AnyMeterProvider
from opentelemetry.metrics import NoOpMeterProvider
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import MetricReader, PeriodicExportingMetricReader
from opentelemetry.sdk.resources import SERVICE_INSTANCE_ID, SERVICE_NAME, SERVICE_NAMESPACE, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import ParentBased, Sampler, TraceIdRatioBased
from opentelemetry.trace import NoOpTracerProvider
from opentelemetry.trace import TracerProvider as AnyTracerProvider
from opentelemetry.util.types import AnyValue
from prometheus_client import CollectorRegistry, start_http_server

from common.telemetry import names, spans
from common.telemetry.conversation import ConversationObserver
from common.telemetry.export import Exporters, Protocol, exporters
from common.telemetry.gpu import find_gpus, tell_gpus
from common.telemetry.names import Attribute, SpanName
from common.telemetry.page import LatestReader, PrometheusPage
from common.telemetry.spans import NoTrace, RpcTrace, TraceParent, Turn, TurnInstruments, Untold, Work
from common.telemetry.stage import StageObserver

_CLOSE_S = 2.0
_NO_TRACE = NoTrace()


@dataclass(frozen=True)
class TelemetrySettings:
    """`otlp_endpoint` is a URL such as http://127.0.0.1:4317 (None: the standard OTEL_EXPORTER_OTLP_* variables, and
    without those no export), `otlp_protocol` how it is spoken to (None: those variables, else gRPC). `trace_ratio` is
    the share of traces kept where no caller has decided (None: OTEL_TRACES_SAMPLER). `metrics_port` 0 takes any free
    port, None opens no page."""

    service: str
    otlp_endpoint: str | None = None
    otlp_protocol: Protocol | None = None
    trace_ratio: float | None = None
    metrics_host: str = "127.0.0.1"
    metrics_port: int | None = None


class Telemetry:
    """Everything that one process tells about itself. Open it with `open` or `off`, close it last."""

    def __init__(self, tracers: AnyTracerProvider, meters: AnyMeterProvider) -> None:
        self._tracers = tracers
        self._meters = meters
        self._tracer = tracers.get_tracer("voicemesh")
        self._meter = meters.get_meter("voicemesh")
        self._silent = isinstance(tracers, NoOpTracerProvider) and isinstance(meters, NoOpMeterProvider)
        self._exporters = Exporters()
        self._page: tuple[Any, Thread] | None = None
        self._rpc_duration = self._meter.create_histogram(
            names.RPC_SERVER_DURATION,
            "s",
            "Duration of calls, from their first message to their status",
            explicit_bucket_boundaries_advisory=names.CALL_EDGES_S,
        )
        self._turn = TurnInstruments.on(self._meter)
        self._observers: dict[str, StageObserver] = {}
        self._conversations: ConversationObserver | None = None

    @classmethod
    def off(cls) -> Telemetry:
        """Tells nobody anything; trace contexts still pass through."""
        return cls(NoOpTracerProvider(), NoOpMeterProvider())

    @classmethod
    def open(cls, settings: TelemetrySettings) -> Telemetry:
        """As `settings` say. OSError when the port of the Prometheus page is taken. OTEL_SDK_DISABLED=true turns it
        off."""
        if os.environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
            return cls.off()
        resource = Resource.create(
            {
                SERVICE_NAME: settings.service,
                SERVICE_NAMESPACE: "voicemesh",
                SERVICE_INSTANCE_ID: f"{os.uname().nodename}-{os.getpid()}",
            }
        )
        registry, sinks = CollectorRegistry(), exporters(settings.otlp_endpoint, settings.otlp_protocol)
        telemetry = cls(_tracers(settings, resource, sinks), _meters(settings, resource, sinks, registry))
        telemetry._exporters = sinks
        tell_gpus(telemetry._meter, find_gpus())
        if settings.metrics_port is not None:
            telemetry._page = start_http_server(settings.metrics_port, settings.metrics_host, registry)
        return telemetry

    @property
    def metrics_port(self) -> int | None:
        """Where the Prometheus page is, or None."""
        return None if self._page is None else int(self._page[0].server_port)

    def rpc(self, method: str, metadata: Iterable[tuple[str, str | bytes]]) -> RpcTrace | NoTrace:
        """A call begins in the current task; `end` ends it, in the same task."""
        if self._silent and not any(key == "traceparent" for key, _ in metadata):
            return _NO_TRACE
        return RpcTrace(self._tracer, self._rpc_duration, method, metadata)

    def utterance(
        self,
        name: SpanName,
        trace: TraceParent | None = None,
        *,
        session_id: str = "",
        epoch: int = 0,
        utterance: int = 0,
    ) -> Work:
        """An utterance or answer begins, caused by what its `TraceContext` says, else by the current call."""
        if self._silent:
            return Untold(trace)
        on: dict[str, AnyValue] = {
            Attribute.SESSION_ID.value: session_id,
            Attribute.EPOCH.value: epoch,
            Attribute.UTTERANCE.value: utterance,
        }
        return Work(spans.start(self._tracer, name, spans.extract(trace), on))

    def turn(self, trace: TraceParent | None = None, *, session_id: str = "", epoch: int = 0) -> Turn:
        """A turn begins: the root of a trace unless the caller brought one."""
        if self._silent:
            return Untold(trace)
        on: dict[str, AnyValue] = {Attribute.SESSION_ID.value: session_id, Attribute.EPOCH.value: epoch}
        parent = spans.extract(trace) or Context()
        return Turn(spans.start(self._tracer, SpanName.TURN, parent, on), self._turn)

    def observer(self, stage: str) -> StageObserver:
        """The measures of that stage, one object for all who ask."""
        if stage not in self._observers:
            self._observers[stage] = StageObserver(self._meter, stage)
        return self._observers[stage]

    def conversations(self) -> ConversationObserver:
        """The measures of conversations, one object for all of them."""
        if self._conversations is None:
            self._conversations = ConversationObserver(self._meter)
        return self._conversations

    def close(self) -> None:
        """Send what is left, within seconds even when nobody takes it, and close the page. Blocks."""
        if self._page is not None:
            server, thread = self._page
            server.shutdown()
            server.server_close()
            thread.join()
            self._page = None
        closing = [
            Thread(target=provider.shutdown, daemon=True)
            for provider in (self._tracers, self._meters)
            if isinstance(provider, TracerProvider | MeterProvider)
        ]
        for thread in closing:
            thread.start()
        deadline = time.monotonic() + _CLOSE_S
        for thread in closing:
            thread.join(max(0.0, deadline - time.monotonic()))
        if any(thread.is_alive() for thread in closing):  # a provider waits for its exporter's retries, up to 30 s
            self._exporters.shutdown()


def _tracers(settings: TelemetrySettings, resource: Resource, sinks: Exporters) -> TracerProvider:
    sampler: Sampler | None = None
    if settings.trace_ratio is not None:
        sampler = ParentBased(TraceIdRatioBased(settings.trace_ratio))
    provider = TracerProvider(sampler=sampler, resource=resource, shutdown_on_exit=False)
    if sinks.spans is not None:
        provider.add_span_processor(BatchSpanProcessor(sinks.spans))
    return provider


def _meters(
    settings: TelemetrySettings, resource: Resource, sinks: Exporters, registry: CollectorRegistry
) -> AnyMeterProvider:
    readers: list[MetricReader] = []
    if settings.metrics_port is not None:
        latest = LatestReader()
        registry.register(PrometheusPage(latest, resource))
        readers.append(latest)
    if sinks.metrics is not None:
        readers.append(PeriodicExportingMetricReader(sinks.metrics))
    if not readers:
        return NoOpMeterProvider()
    return MeterProvider(readers, resource, shutdown_on_exit=False)
