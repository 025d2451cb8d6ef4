"""The Prometheus page: OpenTelemetry's figures as families of `prometheus_client`, each bucket with the trace of one
value in it where a scraper asks for OpenMetrics.

OpenTelemetry's own exporter drops exemplars (0.66b2), so the translation stands here. Names and labels are its: dots
become underscores, the unit a suffix.
"""

from __future__ import annotations

import json
import re
from bisect import bisect_left
from collections.abc import Iterator, Mapping
from itertools import accumulate
from math import inf, isinf
from threading import Lock
from typing import Any

from opentelemetry.sdk.metrics.export import (
    Gauge,
    Histogram,
    HistogramDataPoint,
    MetricReader,
    MetricsData,
    NumberDataPoint,
    Sum,
)
from opentelemetry.sdk.metrics.export import Metric as Told
from opentelemetry.sdk.resources import Resource
from prometheus_client import Metric
from prometheus_client.core import Exemplar
from prometheus_client.registry import Collector

_UNFIT = re.compile("[^a-zA-Z0-9]+")
_UNITS = {"s": "seconds", "By": "bytes"}  # others, such as {slot} and 1, leave no trace in a name


class LatestReader(MetricReader):
    """Reads when it is asked to and keeps what it read."""

    def __init__(self) -> None:
        super().__init__()
        self._reading = Lock()
        self._latest: MetricsData | None = None

    def read(self) -> MetricsData | None:
        """Everything as it is now; None when nothing was ever told."""
        with self._reading:
            self._latest = None
            self.collect()
            return self._latest

    def _receive_metrics(self, metrics_data: MetricsData, timeout_millis: float = 10_000, **kwargs: Any) -> None:
        self._latest = metrics_data

    def shutdown(self, timeout_millis: float = 30_000, **kwargs: Any) -> None:
        """There is nothing to send."""


class PrometheusPage(Collector):
    """What a `CollectorRegistry` shows of a reader: each look at the page is one reading."""

    def __init__(self, reader: LatestReader, resource: Resource) -> None:
        self._reader = reader
        self._target = Metric("target", "Target metadata", "info")
        self._target.add_sample("target_info", _labels(resource.attributes), 1)

    def collect(self) -> Iterator[Metric]:
        """Every family as it is now."""
        yield self._target
        read = self._reader.read()
        for part in [] if read is None else read.resource_metrics:
            for scope in part.scope_metrics:
                for told in scope.metrics:
                    yield _family(told)

    def describe(self) -> list[Metric]:
        """Nothing: registering must not read."""
        return []


def _family(told: Told) -> Metric:
    kinds = {Histogram: "histogram", Gauge: "gauge", Sum: "counter"}
    kind = kinds[type(told.data)]
    if isinstance(told.data, Sum) and not told.data.is_monotonic:
        kind = "gauge"
    family = Metric(prometheus_name(told.name), told.description or told.name, kind, _UNITS.get(told.unit or "", ""))
    for point in told.data.data_points:
        labels = _labels(point.attributes or {})
        if isinstance(point, HistogramDataPoint):
            _add_histogram(family, labels, point)
        elif isinstance(point, NumberDataPoint):
            family.add_sample(family.name + ("_total" if kind == "counter" else ""), labels, point.value)
    return family


def _add_histogram(family: Metric, labels: dict[str, str], point: HistogramDataPoint) -> None:
    bounds = [*point.explicit_bounds, inf]
    exemplars = {
        bisect_left(point.explicit_bounds, seen.value): Exemplar(
            {"trace_id": f"{seen.trace_id:032x}", "span_id": f"{seen.span_id:016x}"},
            seen.value,
            seen.time_unix_nano / 1e9,
        )
        for seen in point.exemplars
        if seen.trace_id and seen.span_id
    }
    for index, (bound, count) in enumerate(zip(bounds, accumulate(point.bucket_counts), strict=True)):
        on = labels | {"le": "+Inf" if isinf(bound) else str(float(bound))}
        family.add_sample(f"{family.name}_bucket", on, count, exemplar=exemplars.get(index))
    family.add_sample(f"{family.name}_count", labels, point.count)
    family.add_sample(f"{family.name}_sum", labels, point.sum)


def prometheus_name(name: str) -> str:
    """That name without its unit, as it stands on the page."""
    return _UNFIT.sub("_", name)


def _labels(attributes: Mapping[str, Any]) -> dict[str, str]:
    return {_UNFIT.sub("_", key): _text(value) for key, value in attributes.items()}


def _text(value: Any) -> str:
    """As OpenTelemetry says: words as they are, everything else as JSON writes it (true, 3)."""
    return value if isinstance(value, str) else json.dumps(value, default=str)
