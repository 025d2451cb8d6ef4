"""Spans and measures: what is told of calls, utterances, turns and engines."""

import asyncio
import gc
import itertools
import json
import logging
import threading
import time
import weakref
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from io import StringIO
from typing import Any
from urllib.request import urlopen

import grpc
import pytest
from opentelemetry import trace as otel_trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode
from voicemesh.codec.v1 import codec_pb2

from common.errors import Broken, InvalidRequest
from common.telemetry import (
    Attribute,
    Milestone,
    SpanName,
    Telemetry,
    TelemetrySettings,
    configure_logging,
    inject,
    names,
)
from tests.common.otlp_sink import otlp_sink
from tests.common.service import Servicer, Stub, echo, failed, serving

Request = codec_pb2.DecodeRequest
ELSEWHERE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@dataclass
class Told:
    """A Telemetry and everything that it told."""

    telemetry: Telemetry
    exporter: InMemorySpanExporter
    reader: InMemoryMetricReader

    def spans(self, name: str) -> list[ReadableSpan]:
        return [span for span in self.exporter.get_finished_spans() if span.name == name]

    def points(self) -> dict[str, list[Any]]:
        data = self.reader.get_metrics_data()
        if data is None:
            return {}
        scopes = [scope for resource in data.resource_metrics for scope in resource.scope_metrics]
        return {metric.name: list(metric.data.data_points) for scope in scopes for metric in scope.metrics}


@pytest.fixture
def told() -> Iterator[Told]:
    exporter, reader = InMemorySpanExporter(), InMemoryMetricReader()
    tracers = TracerProvider(shutdown_on_exit=False)
    tracers.add_span_processor(SimpleSpanProcessor(exporter))
    telemetry = Telemetry(tracers, MeterProvider([reader], shutdown_on_exit=False))
    yield Told(telemetry, exporter, reader)
    telemetry.close()


async def generate(requests: AsyncIterator[Any], context: Any) -> AsyncIterator[codec_pb2.DecodeResponse]:
    while True:
        yield codec_pb2.DecodeResponse()
        await asyncio.sleep(0)


async def write(requests: AsyncIterator[Any], context: Any) -> None:
    async for _ in generate(requests, context):
        await context.write(codec_pb2.DecodeResponse())


async def wait(requests: AsyncIterator[Any], context: Any) -> None:
    await context.write(codec_pb2.DecodeResponse())
    await asyncio.Event().wait()


async def read(requests: AsyncIterator[Any], context: Any) -> AsyncIterator[codec_pb2.DecodeResponse]:
    yield codec_pb2.DecodeResponse()
    async for _ in requests:
        pass


async def read_by_call(requests: AsyncIterator[Any], context: Any) -> None:
    await context.write(codec_pb2.DecodeResponse())
    while await context.read() is not grpc.aio.EOF:
        pass


@pytest.mark.parametrize("handler", [generate, write, wait, read, read_by_call])
async def test_a_call_that_its_caller_cancels_is_told_as_cancelled_at_once_and_as_no_error(
    handler: Any, told: Told
) -> None:
    async with serving(Servicer(handler), telemetry=told.telemetry) as (server, channel):
        call = Stub(channel).Decode()
        await call.read()
        call.cancel()
        await server.idle()
        (span,) = told.spans("voicemesh.codec.v1.CodecService/Decode")
        assert span.attributes is not None
        assert span.attributes[Attribute.RPC_STATUS_CODE] == "CANCELLED"
        assert span.status.status_code is StatusCode.UNSET
        (point,) = told.points()[names.RPC_SERVER_DURATION]
    assert point.attributes[Attribute.RPC_STATUS_CODE] == "CANCELLED"
    assert Attribute.ERROR_TYPE not in point.attributes


@pytest.mark.parametrize(
    ("error", "status", "is_error"),
    [
        (None, "OK", False),
        (InvalidRequest("Mend it."), "INVALID_ARGUMENT", False),
        (Broken("The device failed."), "INTERNAL", True),
        (KeyError("bug"), "INTERNAL", True),
    ],
)
async def test_a_call_is_told_with_its_status(error: Exception | None, status: str, is_error: bool, told: Told) -> None:
    async def get_codec(request: Any, context: Any) -> codec_pb2.GetCodecResponse:
        if error:
            raise error
        return codec_pb2.GetCodecResponse()

    async with serving(Servicer(get_codec=get_codec), telemetry=told.telemetry) as (_, channel):
        call = Stub(channel).GetCodec(codec_pb2.GetCodecRequest(), metadata=(("traceparent", ELSEWHERE),))
        await (failed(call) if error else call)
    (span,) = told.spans("voicemesh.codec.v1.CodecService/GetCodec")
    assert span.attributes is not None
    assert span.attributes[Attribute.RPC_STATUS_CODE] == status
    assert (span.status.status_code is StatusCode.ERROR) == is_error
    assert span.parent is not None
    assert f"{span.parent.trace_id:032x}" == ELSEWHERE.split("-")[1]


async def test_a_caller_out_of_time_is_told_as_deadline_exceeded(told: Told) -> None:
    async with serving(Servicer(wait), telemetry=told.telemetry) as (server, channel):
        call = Stub(channel).Decode(timeout=0.2)
        await call.read()
        assert (await failed(call)).code() is grpc.StatusCode.DEADLINE_EXCEEDED
        await server.idle()
    (span,) = told.spans("voicemesh.codec.v1.CodecService/Decode")
    assert span.attributes is not None
    assert span.attributes[Attribute.RPC_STATUS_CODE] == "DEADLINE_EXCEEDED"


async def test_a_stream_has_one_span_and_each_utterance_its_own_under_what_its_message_says(told: Told) -> None:
    async def decode(requests: AsyncIterator[Any], context: Any) -> AsyncIterator[codec_pb2.DecodeResponse]:
        async for request in requests:
            parent = (request.start.trace.traceparent, request.start.trace.tracestate)
            work = told.telemetry.utterance(SpanName.CODEC_DECODE, parent, session_id="s", epoch=request.epoch)
            work.end("COMPLETED")
            yield codec_pb2.DecodeResponse()

    other = ELSEWHERE.replace("0af7", "1af7")
    async with serving(Servicer(decode), telemetry=told.telemetry) as (_, channel):
        call = Stub(channel).Decode()
        for epoch, parent in enumerate([ELSEWHERE, other, "nonsense"]):
            await call.write(Request(epoch=epoch, start={"trace": {"traceparent": parent}}))
            await call.read()
        await call.done_writing()
        await call.read()
    (stream,) = told.spans("voicemesh.codec.v1.CodecService/Decode")
    first, second, stray = told.spans("codec.decode")
    assert [f"{span.context.trace_id:032x}" for span in (first, second)] == [
        p.split("-")[1] for p in (ELSEWHERE, other)
    ]
    assert first.parent is not None
    assert f"{first.parent.span_id:016x}" == ELSEWHERE.split("-")[2]
    assert [link.context.span_id for link in first.links] == [stream.context.span_id]
    assert stray.parent is not None
    assert stray.parent.span_id == stream.context.span_id


def test_the_context_goes_on_to_the_next_hop(told: Told) -> None:
    turn = told.telemetry.turn(session_id="s", epoch=1)
    child = told.telemetry.utterance(SpanName.TTS_LM_GENERATE, turn.trace_parent())
    grandchild = told.telemetry.utterance(SpanName.CODEC_DECODE, child.trace_parent())
    for work in (grandchild, child, turn):
        work.end("COMPLETED")
    below, middle, top = told.exporter.get_finished_spans()
    assert below.parent is not None
    assert middle.parent is not None
    assert (below.parent.span_id, middle.parent.span_id) == (middle.context.span_id, top.context.span_id)
    assert top.parent is None
    assert len({span.context.trace_id for span in (below, middle, top)}) == 1


def test_the_context_passes_through_where_nothing_is_told() -> None:
    work = Telemetry.off().utterance(SpanName.CODEC_DECODE, (ELSEWHERE, "vendor=1"))
    assert work.trace_parent() == (ELSEWHERE, "vendor=1")
    assert inject() == ("", "")


MOMENTS = list(Milestone)


def test_milestones_are_events_and_measures_at_the_same_moments(told: Told) -> None:
    turn = told.telemetry.turn(session_id="s", epoch=1)
    for index, milestone in enumerate(MOMENTS):
        turn.milestone(milestone, 1000.0 + index)
        turn.milestone(milestone, 2000.0)
    turn.end("COMPLETED")
    (span,) = told.spans("turn")
    assert [(event.name, event.timestamp) for event in span.events] == [
        (milestone.value, (1000 + index) * 10**9) for index, milestone in enumerate(MOMENTS)
    ]
    assert span.attributes is not None
    assert span.attributes[Attribute.TIME_TO_FIRST_AUDIO_MS] == 7000
    points = told.points()
    since = {point.attributes[Attribute.MILESTONE]: point.sum for point in points[names.TURN_MILESTONE]}
    assert since == {milestone.value: float(index) for index, milestone in enumerate(MOMENTS)}
    hops = {point.attributes[Attribute.MILESTONE]: point.sum for point in points[names.TURN_HOP]}
    assert hops == {milestone.value: 1.0 for milestone in MOMENTS[1:]}
    sums = {name: points[name][0].sum for name in points if name.startswith("voicemesh.turn.time") or "gen_ai" in name}
    assert sums == {
        names.TIME_TO_FIRST_TOKEN: 1.0,
        names.TURN_TIME_TO_FIRST_PACKET: 2.0,
        names.TURN_TIME_TO_FIRST_AUDIO: 7.0,
    }


def test_a_turn_that_begins_with_text_measures_what_it_can(told: Told) -> None:
    turn = told.telemetry.turn(session_id="s", epoch=1)
    turn.milestone(Milestone.TTS_TEXT_FIRST, 10.0)
    turn.milestone(Milestone.CODEC_FIRST_PCM, 10.5)
    turn.end("COMPLETED")
    points = told.points()
    assert points[names.TURN_TIME_TO_FIRST_PACKET][0].sum == 0.5
    assert names.TURN_MILESTONE not in points
    assert names.TURN_TIME_TO_FIRST_AUDIO not in points


def test_after_its_end_nothing_more_is_told_of_a_turn(told: Told, caplog: pytest.LogCaptureFixture) -> None:
    turn = told.telemetry.turn()
    turn.end("CANCELLED")
    turn.milestone(Milestone.PLAYOUT_FIRST)
    turn.end("FAILED", "BROKEN")
    (span,) = told.spans("turn")
    assert span.attributes is not None
    assert span.attributes[Attribute.FINISH_REASON] == "CANCELLED"
    assert not span.events
    assert caplog.records == []


def test_of_work_that_is_over_only_its_place_in_the_trace_is_kept(told: Told) -> None:
    turn = told.telemetry.turn()
    where, span = turn.trace_parent(), weakref.ref(turn._span)
    turn.milestone(Milestone.PLAYOUT_FIRST)
    turn.end("COMPLETED")
    assert len(told.spans("turn")) == 1
    assert turn.trace_parent() == where
    gc.collect()
    assert span() is None


def test_a_turn_cut_short_links_to_the_one_that_cut_it(told: Told) -> None:
    cut, cutter = told.telemetry.turn(epoch=1), told.telemetry.turn(epoch=2)
    cut.cut_by(cutter.trace_parent())
    cut.end("CANCELLED")
    cutter.end("COMPLETED")
    first, second = told.spans("turn")
    assert [link.context.span_id for link in first.links] == [second.context.span_id]


def test_a_failed_utterance_says_why(told: Told) -> None:
    told.telemetry.utterance(SpanName.CODEC_DECODE).end("FAILED", "NO_SLOT")
    (span,) = told.spans("codec.decode")
    assert span.status.status_code is StatusCode.ERROR
    assert span.attributes is not None
    assert span.attributes[Attribute.ERROR_REASON] == "NO_SLOT"


def exercised(told: Told, sessions: range) -> None:
    observer = told.telemetry.observer("tts_lm")
    for session in sessions:
        turn = told.telemetry.turn(session_id=f"session-{session}", epoch=session)
        for milestone in MOMENTS:
            turn.milestone(milestone)
        turn.end("COMPLETED")
        told.telemetry.rpc("/voicemesh.codec.v1.CodecService/Decode", ()).end("OK")
        observer.step(0.004, 3)
        observer.slots(3, 16)
        observer.waited(0.01)
        observer.starved()
        observer.lead(0.3)
        observer.underrun()
        observer.cancelled(0.02)
        observer.stale(2)
        observer.repeated()
        observer.ended("COMPLETED", time_to_first_s=0.02, compute_s=0.1, audio_s=1.0)


def test_measures_carry_no_ids_and_grow_with_nothing_that_grows(told: Told) -> None:
    exercised(told, range(1))
    before = {name: len(points) for name, points in told.points().items()}
    exercised(told, range(1, 200))
    points = told.points()
    assert {name: len(series) for name, series in points.items()} == before
    keys = {key for series in points.values() for point in series for key in point.attributes}
    assert keys <= {attribute.value for attribute in names.METRIC_ATTRIBUTES}


def test_every_measure_is_told_once_for_what_it_saw(told: Told) -> None:
    exercised(told, range(2))
    points = told.points()
    assert points["voicemesh.tts_lm.step.duration"][0].sum == pytest.approx(0.008)
    assert points["voicemesh.tts_lm.step.batch_size"][0].sum == 6
    assert points[names.SLOT_USAGE][0].value == 3
    assert points[names.SLOT_LIMIT][0].value == 16
    assert points[names.STREAM_STALE][0].value == 4
    assert points[names.UTTERANCES][0].attributes[Attribute.FINISH_REASON] == "COMPLETED"
    assert points[names.UTTERANCE_RTF][0].sum == pytest.approx(0.2)


def test_names_follow_the_conventions(told: Told) -> None:
    exercised(told, range(1))
    for name in told.points():
        assert name == name.lower()
        assert name.startswith(("voicemesh.", "rpc.", "gen_ai."))
        assert not name.endswith(("_total", "_seconds", "_s", ".seconds"))


TARGETS_S = (0.015, 0.018, 0.022, 0.025, 0.03, 0.035, 0.04, 0.05, 0.08, 0.0015, 0.003, 0.15, 0.2)


def test_every_target_is_an_edge_with_edges_on_both_sides(told: Told) -> None:
    exercised(told, range(1))
    bounds = told.points()[names.TURN_TIME_TO_FIRST_AUDIO][0].explicit_bounds
    for target in TARGETS_S:
        at = bounds.index(target)
        assert 0 < at < len(bounds) - 1
    for edges in (names.LATENCY_EDGES_S, names.STEP_EDGES_S, names.RTF_EDGES, names.LEAD_EDGES_S, names.CALL_EDGES_S):
        assert all(low < high for low, high in itertools.pairwise(edges))


def test_a_measure_of_a_turn_leads_to_its_trace(told: Told) -> None:
    turn = told.telemetry.turn()
    turn.milestone(Milestone.USER_SPEECH_END, 1.0)
    turn.milestone(Milestone.PLAYOUT_FIRST, 1.5)
    turn.end("COMPLETED")
    (span,) = told.spans("turn")
    (exemplar,) = told.points()[names.TURN_TIME_TO_FIRST_AUDIO][0].exemplars
    assert (exemplar.trace_id, exemplar.span_id) == (span.context.trace_id, span.context.span_id)


def fetched(port: int | None) -> str:
    with urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as page:
        return str(page.read().decode())


def test_two_in_one_process_share_nothing() -> None:
    first = Telemetry.open(TelemetrySettings("codec", metrics_port=0))
    second = Telemetry.open(TelemetrySettings("brain", metrics_port=0))
    first.observer("codec").step(0.004, 3)
    try:
        assert "voicemesh_codec_step_duration_seconds_bucket" in fetched(first.metrics_port)
        assert "voicemesh_codec_step" not in fetched(second.metrics_port)
        assert isinstance(otel_trace.get_tracer_provider(), otel_trace.ProxyTracerProvider)
    finally:
        first.close()
        second.close()
    with pytest.raises(OSError, match="refused"):
        fetched(first.metrics_port or 1)


def test_what_is_told_arrives_at_a_collector() -> None:
    with otlp_sink() as sink:
        telemetry = Telemetry.open(TelemetrySettings("codec", otlp_endpoint=sink.endpoint))
        telemetry.observer("codec").step(0.004, 3)
        telemetry.utterance(SpanName.CODEC_DECODE, session_id="s").end("COMPLETED")
        telemetry.close()
        (span,) = sink.spans
    assert (span.service, span.name) == ("codec", "codec.decode")
    assert "voicemesh.codec.step.duration" in sink.metrics


def test_the_standard_variables_name_a_collector_too(monkeypatch: pytest.MonkeyPatch) -> None:
    with otlp_sink() as sink:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", sink.endpoint)
        telemetry = Telemetry.open(TelemetrySettings("codec"))
        telemetry.utterance(SpanName.CODEC_DECODE).end("COMPLETED")
        telemetry.close()
        assert [span.name for span in sink.spans] == ["codec.decode"]


@pytest.mark.parametrize("parent", [ELSEWHERE, ELSEWHERE[:-1] + "0"])
def test_a_ratio_decides_only_where_the_caller_has_not(parent: str) -> None:
    with otlp_sink() as sink:
        telemetry = Telemetry.open(TelemetrySettings("codec", otlp_endpoint=sink.endpoint, trace_ratio=0.0))
        telemetry.turn().end("COMPLETED")
        telemetry.utterance(SpanName.CODEC_DECODE, (parent, "")).end("COMPLETED")
        telemetry.close()
    assert [span.name for span in sink.spans] == (["codec.decode"] if parent.endswith("01") else [])


def test_a_collector_that_is_away_holds_up_no_shutdown() -> None:
    before = set(threading.enumerate())
    telemetry = Telemetry.open(TelemetrySettings("codec", otlp_endpoint="http://127.0.0.1:9"))
    telemetry.observer("codec").step(0.004, 3)
    telemetry.utterance(SpanName.CODEC_DECODE).end("COMPLETED")
    started = time.monotonic()
    telemetry.close()
    took_s = time.monotonic() - started
    left = [thread for thread in threading.enumerate() if thread not in before and "Otel" in thread.name]
    for thread in left:
        thread.join(1)
    assert took_s < 5
    assert not any(thread.is_alive() for thread in left)


def test_the_sdk_can_be_switched_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    telemetry = Telemetry.open(TelemetrySettings("codec", metrics_port=0))
    assert telemetry.metrics_port is None
    telemetry.close()


async def test_a_log_is_one_json_line_with_fields_and_the_trace_it_belongs_to(told: Told) -> None:
    stream, log = StringIO(), logging.getLogger("tests.log")

    async def get_codec(request: Any, context: Any) -> codec_pb2.GetCodecResponse:
        log.info("slot leased", extra={"slot": 3, "why": "two\nlines"})
        raise ValueError("bug")

    before = (logging.root.handlers[:], logging.root.level)
    configure_logging("codec", "INFO", stream)
    try:
        async with serving(Servicer(get_codec=get_codec), telemetry=told.telemetry) as (_, channel):
            await failed(Stub(channel).GetCodec(codec_pb2.GetCodecRequest()))
    finally:
        logging.root.handlers[:], _ = before
        logging.root.setLevel(before[1])
        logging.captureWarnings(False)
    leased, broke = (json.loads(line) for line in stream.getvalue().splitlines())
    (span,) = told.spans("voicemesh.codec.v1.CodecService/GetCodec")
    assert (leased["message"], leased["slot"], leased["why"]) == ("slot leased", 3, "two\nlines")
    assert leased["service"] == "codec"
    assert leased["trace_id"] == broke["trace_id"] == f"{span.context.trace_id:032x}"
    assert "ValueError: bug" in broke["exception"]


async def test_telling_nobody_changes_no_answer() -> None:
    async with serving(Servicer(echo), telemetry=Telemetry.off()) as (_, channel):
        call = Stub(channel).Decode()
        await call.write(Request(seq=1))
        assert (await call.read()).seq == 1
        call.cancel()
