"""Spans of calls, utterances and turns, and the milestones of a turn.

A stream outlives the utterances that it carries, so a call has one span and each utterance its own, whose parent comes
in the utterance's `TraceContext`. Nothing here knows gRPC: a call is a method name, metadata and in the end the name of
a status.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from contextvars import Token
from dataclasses import dataclass

from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.metrics import Histogram, Meter
from opentelemetry.trace import Link, NonRecordingSpan, Span, SpanKind, Status, StatusCode, Tracer
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from opentelemetry.util.types import AnyValue

from common.telemetry import names
from common.telemetry.names import Attribute, Milestone, SpanName

TraceParent = tuple[str, str]
"""`traceparent` and `tracestate` of the W3C, either may be empty."""

_PROPAGATOR = TraceContextTextMapPropagator()
# The statuses that count as errors of a server (semantic conventions for gRPC): not CANCELLED, for hanging up is
# nobody's fault, and not those that tell the caller to mend its request or to come back later.
_FAULTS = frozenset({"UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS"})


def extract(trace_parent: TraceParent | None) -> Context | None:
    """The context that a message brought, or None where it brought none; malformed values count as none."""
    if trace_parent is None or not trace_parent[0]:
        return None
    context = _PROPAGATOR.extract({"traceparent": trace_parent[0], "tracestate": trace_parent[1]}, Context())
    return context if trace.get_current_span(context).get_span_context().is_valid else None


def inject(context: Context | None = None) -> TraceParent:
    """What to put into the `TraceContext` of a message so that its work belongs to `context` (the current one)."""
    carrier: dict[str, str] = {}
    _PROPAGATOR.inject(carrier, context)
    return carrier.get("traceparent", ""), carrier.get("tracestate", "")


class RpcTrace:
    """One call: its span, current while it runs, and its place in the duration histogram."""

    def __init__(
        self, tracer: Tracer, duration: Histogram, method: str, metadata: Iterable[tuple[str, str | bytes]]
    ) -> None:
        carrier = {
            key: value for key, value in metadata if key in ("traceparent", "tracestate") and isinstance(value, str)
        }
        parent = extract((carrier.get("traceparent", ""), carrier.get("tracestate", "")))
        self._duration = duration
        self._attributes: dict[str, str] = {Attribute.RPC_SYSTEM: "grpc", Attribute.RPC_METHOD: method.lstrip("/")}
        self._started = time.perf_counter()
        self._span = tracer.start_span(method.lstrip("/"), parent or Context(), SpanKind.SERVER, self._attributes)
        self._context = trace.set_span_in_context(self._span)
        self._token: Token[Context] | None = otel_context.attach(self._context)

    def end(self, status: str) -> None:
        """The call ended with the gRPC status of that name. The first word counts; call it in the task that began the
        call."""
        if self._token is None:
            return
        otel_context.detach(self._token)
        self._token = None
        self._attributes[Attribute.RPC_STATUS_CODE] = status
        if status in _FAULTS:
            self._attributes[Attribute.ERROR_TYPE] = status
            self._span.set_status(Status(StatusCode.ERROR, status))
        self._span.set_attributes(self._attributes)
        self._span.end()
        self._duration.record(time.perf_counter() - self._started, self._attributes, self._context)


class NoTrace:
    """A call when nothing is told to anybody."""

    __slots__ = ()

    def end(self, status: str) -> None:
        """As `RpcTrace.end`."""


class Work:
    """The span of one utterance, answer or turn. The first `end` counts; after it nothing changes any more, and of the
    span only its name in the trace is kept: whoever remembers a turn does not keep its 10 KB of events."""

    def __init__(self, span: Span) -> None:
        self._span = span
        self._context = trace.set_span_in_context(span)
        self._ended = False

    def trace_parent(self) -> TraceParent:
        """For the `TraceContext` of messages that cause work elsewhere."""
        return inject(self._context)

    def milestone(self, milestone: Milestone, time_s: float | None = None) -> None:
        """That moment is now, or at Unix time `time_s`."""
        if self._ended:
            return
        self._span.add_event(milestone.value, timestamp=None if time_s is None else round(time_s * 1e9))

    def note(self, attribute: Attribute, value: str | int | float | bool) -> None:
        """A fact about this work."""
        self._span.set_attribute(attribute.value, value)

    def cut_by(self, other: TraceParent) -> None:
        """This turn was cut short by that one."""
        context = extract(other)
        if context is not None:
            self._span.add_link(trace.get_current_span(context).get_span_context())

    def end(self, reason: str, error_reason: str | None = None) -> None:
        """It is over: `reason` is a name of `FinishReason`, `error_reason` one of `ErrorReason` when it FAILED."""
        if self._ended:
            return
        self._ended = True
        self._span.set_attribute(Attribute.FINISH_REASON.value, reason)
        if error_reason is not None:
            self._span.set_attribute(Attribute.ERROR_REASON.value, error_reason)
            self._span.set_status(Status(StatusCode.ERROR, error_reason))
        self._span.end()
        self._span = NonRecordingSpan(self._span.get_span_context())
        self._context = trace.set_span_in_context(self._span)


@dataclass(frozen=True)
class TurnInstruments:
    """The histograms of a turn."""

    milestone: Histogram
    hop: Histogram
    first_token: Histogram
    first_packet: Histogram
    first_audio: Histogram

    @classmethod
    def on(cls, meter: Meter) -> TurnInstruments:
        def seconds(name: str, description: str) -> Histogram:
            return meter.create_histogram(
                name, "s", description, explicit_bucket_boundaries_advisory=names.LATENCY_EDGES_S
            )

        return cls(
            milestone=seconds(names.TURN_MILESTONE, "From the end of the user's speech to a milestone"),
            hop=seconds(names.TURN_HOP, "From the milestone before to this one"),
            first_token=seconds(names.TIME_TO_FIRST_TOKEN, "From the brain's whole input to its first text"),
            first_packet=seconds(
                names.TURN_TIME_TO_FIRST_PACKET, "From the first text in tts_lm to the first PCM of codec"
            ),
            first_audio=seconds(
                names.TURN_TIME_TO_FIRST_AUDIO, "From the end of the user's speech to the first sample played"
            ),
        )


class Turn(Work):
    """A turn: a span whose milestones are histograms too. Each milestone counts once, the first time."""

    def __init__(self, span: Span, instruments: TurnInstruments) -> None:
        super().__init__(span)
        self._instruments = instruments
        self._times_s: dict[Milestone, float] = {}

    def milestone(self, milestone: Milestone, time_s: float | None = None) -> None:
        if self._ended or milestone in self._times_s:
            return
        time_s = time.time() if time_s is None else time_s
        super().milestone(milestone, time_s)
        on = {Attribute.MILESTONE.value: milestone.value}
        if self._times_s:
            hop_s = time_s - max(self._times_s.values())
            self._instruments.hop.record(max(0.0, hop_s), on, self._context)
        self._times_s[milestone] = time_s
        self._since(Milestone.USER_SPEECH_END, milestone, self._instruments.milestone, on)
        self._sum(milestone, Milestone.BRAIN_FIRST_TOKEN, Milestone.ENDPOINT, self._instruments.first_token)
        self._sum(milestone, Milestone.CODEC_FIRST_PCM, Milestone.TTS_TEXT_FIRST, self._instruments.first_packet)
        self._sum(milestone, Milestone.PLAYOUT_FIRST, Milestone.USER_SPEECH_END, self._instruments.first_audio)
        if milestone is Milestone.PLAYOUT_FIRST and Milestone.USER_SPEECH_END in self._times_s:
            heard_s = time_s - self._times_s[Milestone.USER_SPEECH_END]
            self.note(Attribute.TIME_TO_FIRST_AUDIO_MS, round(1000 * heard_s))

    def _sum(self, now: Milestone, last: Milestone, first: Milestone, into: Histogram) -> None:
        if now is last:
            self._since(first, last, into, {})

    def _since(self, first: Milestone, last: Milestone, into: Histogram, on: Mapping[str, str]) -> None:
        if first in self._times_s:
            into.record(max(0.0, self._times_s[last] - self._times_s[first]), on, self._context)


class Untold(Turn):
    """Work of which nothing is told: the context that came goes on as it came."""

    def __init__(self, parent: TraceParent | None) -> None:
        self._parent = parent or inject()

    def trace_parent(self) -> TraceParent:
        return self._parent

    def milestone(self, milestone: Milestone, time_s: float | None = None) -> None:
        pass

    def note(self, attribute: Attribute, value: str | int | float | bool) -> None:
        pass

    def cut_by(self, other: TraceParent) -> None:
        pass

    def end(self, reason: str, error_reason: str | None = None) -> None:
        pass


def start(tracer: Tracer, name: SpanName, parent: Context | None, attributes: dict[str, AnyValue]) -> Span:
    """A span under `parent` (None: the current call); a parent from elsewhere is linked with the call that brought
    it."""
    call = trace.get_current_span().get_span_context()
    links = [Link(call)] if parent is not None and call.is_valid else []
    return tracer.start_span(name.value, parent, SpanKind.INTERNAL, attributes, links)
