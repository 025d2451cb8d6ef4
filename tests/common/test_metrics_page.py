"""The Prometheus page and the gauges of GPUs: what a scraper reads."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from typing import Any
from urllib.request import Request, urlopen

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from common.telemetry import Milestone, Speculation, Telemetry, TelemetrySettings, Verdict, names
from common.telemetry.gpu import Gpus, tell_gpus
from tests.common.test_telemetry import Told, told

__all__ = ["told"]
OPENMETRICS = "application/openmetrics-text; version=1.0.0"


@pytest.fixture
def telemetry(tmp_path: Any) -> Iterator[Telemetry]:
    opened = Telemetry.open(TelemetrySettings("gateway", metrics_port=0))
    yield opened
    opened.close()


def page(telemetry: Telemetry, accept: str) -> str:
    request = Request(f"http://127.0.0.1:{telemetry.metrics_port}/metrics", headers={"Accept": accept})
    with urlopen(request, timeout=5) as answer:
        return str(answer.read().decode())


def heard_after(telemetry: Telemetry, time_s: float) -> str:
    """A turn that was heard after so long; its trace id."""
    turn = telemetry.turn()
    turn.milestone(Milestone.USER_SPEECH_END, 100.0)
    turn.milestone(Milestone.PLAYOUT_FIRST, 100.0 + time_s)
    turn.end("COMPLETED")
    return turn.trace_parent()[0].split("-")[1]


def test_a_slow_turn_is_found_from_its_bucket(telemetry: Telemetry) -> None:
    fast, slow = heard_after(telemetry, 0.12), heard_after(telemetry, 1.2)
    families = text_string_to_metric_families(page(telemetry, OPENMETRICS))
    (buckets,) = (it for it in families if it.name == "voicemesh_turn_time_to_first_audio_seconds")
    seen = {sample.labels["le"]: sample.exemplar.labels["trace_id"] for sample in buckets.samples if sample.exemplar}
    assert seen == {"0.15": fast, "1.5": slow}


def test_who_asks_for_plain_text_gets_no_exemplars(telemetry: Telemetry) -> None:
    trace_id = heard_after(telemetry, 0.12)
    text = page(telemetry, "text/plain")
    assert 'voicemesh_turn_time_to_first_audio_seconds_bucket{le="0.15"} 1.0' in text
    assert trace_id not in text


def test_buckets_add_up_and_say_who_is_told_of(telemetry: Telemetry) -> None:
    observer = telemetry.observer("codec")
    for duration_s in (0.0004, 0.004, 0.004, 9.0):
        observer.step(duration_s, 3)
    families = {it.name: it for it in text_string_to_metric_families(page(telemetry, OPENMETRICS))}
    samples = families["voicemesh_codec_step_duration_seconds"].samples
    counts = [sample.value for sample in samples if sample.name.endswith("_bucket")]
    assert counts == sorted(counts)
    assert (counts[0], counts[-1]) == (1, 4)
    assert {sample.labels["voicemesh_stage"] for sample in samples} == {"codec"}
    (about,) = families["target"].samples
    assert about.labels["service_name"] == "gateway"


def test_what_is_no_word_stands_as_json_writes_it(telemetry: Telemetry) -> None:
    telemetry.observer("tts_lm").prefix(True)
    assert 'voicemesh_prefix_hit="true"' in page(telemetry, OPENMETRICS)


def test_what_counts_faults_is_there_before_the_first_one(telemetry: Telemetry) -> None:
    telemetry.observer("gateway")
    telemetry.conversations()
    told = page(telemetry, OPENMETRICS)
    for name in ("voicemesh_playout_underruns", "voicemesh_stream_stale"):
        assert f'{name}_total{{voicemesh_stage="gateway"}} 0' in told
    assert "voicemesh_pacer_skipped_total 0" in told


def test_the_first_look_at_a_page_of_which_nothing_was_told_yet_is_answered(telemetry: Telemetry) -> None:
    assert "target_info" in page(telemetry, OPENMETRICS)


def test_measures_of_conversations_are_told_by_words_of_fixed_sets(told: Told) -> None:
    observer = told.telemetry.conversations()
    for count in range(50):
        observer.sessions(count, 64)
        for verdict in Verdict:
            observer.voice_during_answer(verdict, 0.12)
        for outcome in Speculation:
            observer.speculated(outcome)
        observer.turn_ended("COMPLETED")
        observer.block_sent(0.0004)
        observer.blocks_skipped(2)
        observer.paused(0.1)
        observer.loop_blocked(0.002)
    points = told.points()
    assert len(points[names.TURN_INTERRUPTIONS]) == len(Verdict)
    assert sum(len(series) for series in points.values()) == 13
    assert points[names.SESSION_ACTIVE][0].value == 49
    assert points[names.TURN_INTERRUPTION_SILENCE][0].sum == pytest.approx(50 * len(Verdict) * 0.12)


class FakeDriver:
    """NVML's functions over two devices, the second of which has fallen off the bus."""

    def nvmlInit_v2(self) -> int:
        return 0

    def nvmlDeviceGetCount_v2(self, count: Any) -> int:
        count._obj.value = 2
        return 0

    def nvmlDeviceGetHandleByIndex_v2(self, index: ctypes.c_uint, handle: Any) -> int:
        handle._obj.value = 1000 + index.value
        return 0

    def nvmlDeviceGetMemoryInfo(self, handle: ctypes.c_void_p, memory: Any) -> int:
        if handle.value != 1000:
            return 15  # NVML_ERROR_GPU_IS_LOST
        memory._obj.total, memory._obj.free, memory._obj.used = 141 * 2**30, 100 * 2**30, 41 * 2**30
        return 0

    def nvmlDeviceGetUtilizationRates(self, handle: ctypes.c_void_p, utilization: Any) -> int:
        utilization._obj.gpu, utilization._obj.memory = 73, 20
        return 0


def test_a_gpu_tells_its_memory_and_use_and_a_lost_one_nothing() -> None:
    reader = InMemoryMetricReader()
    meters = MeterProvider([reader], shutdown_on_exit=False)
    tell_gpus(meters.get_meter("test"), Gpus(FakeDriver()))
    data = reader.get_metrics_data()
    assert data is not None
    (scope,) = data.resource_metrics[0].scope_metrics
    told = {
        metric.name: [(p.attributes["hw.id"], p.value) for p in metric.data.data_points] for metric in scope.metrics
    }
    assert told == {
        names.GPU_MEMORY_USAGE: [("0", 41 * 2**30)],
        names.GPU_MEMORY_LIMIT: [("0", 141 * 2**30)],
        names.GPU_UTILIZATION: [("0", 0.73)],
    }


def test_a_driver_that_does_not_start_has_no_gpus() -> None:
    driver = FakeDriver()
    driver.nvmlInit_v2 = lambda: 9  # type: ignore[method-assign] # NVML_ERROR_DRIVER_NOT_LOADED
    assert len(Gpus(driver)) == 0
