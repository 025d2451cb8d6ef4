"""Every family that a Prometheus page of the mesh can hold, from telemetry of which everything was used once."""

from __future__ import annotations

from urllib.request import urlopen

from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from common.config import SERVICES
from common.stream import FinishReason
from common.telemetry import Milestone, Speculation, Telemetry, TelemetrySettings, Verdict
from common.telemetry.gpu import Gpus, tell_gpus
from tests.common.test_metrics_page import FakeDriver


def families() -> dict[str, Metric]:
    """Family by name, as a live page tells them."""
    telemetry = Telemetry.open(TelemetrySettings("gateway", metrics_port=0))
    try:
        _use_everything(telemetry)
        with urlopen(f"http://127.0.0.1:{telemetry.metrics_port}/metrics", timeout=10) as page:
            return {family.name: family for family in text_string_to_metric_families(page.read().decode())}
    finally:
        telemetry.close()


def _use_everything(telemetry: Telemetry) -> None:
    tell_gpus(telemetry._meter, Gpus(FakeDriver()))
    telemetry.rpc("/voicemesh.codec.v1.CodecService/Decode", ()).end("INTERNAL")
    for stage in SERVICES:
        _use_stage(telemetry, stage)
    turn = telemetry.turn()
    for milestone in Milestone:
        turn.milestone(milestone)
    turn.end("COMPLETED")
    conversations = telemetry.conversations()
    conversations.sessions(1, 2)
    conversations.turn_ended("COMPLETED")
    conversations.voice_during_answer(Verdict.INTERRUPTED, 0.1)
    conversations.speculated(Speculation.KEPT)
    conversations.block_sent(0.001)
    conversations.blocks_skipped(1)
    conversations.paused(0.1)
    conversations.loop_blocked(0.001)


def _use_stage(telemetry: Telemetry, stage: str) -> None:
    observer = telemetry.observer(stage)
    observer.step(0.004, 3)
    observer.slots(3, 16)
    observer.waited(0.01)
    observer.starved()
    observer.prefix(True)
    observer.lead(0.3)
    observer.underrun()
    observer.cancelled(0.02)
    observer.stale()
    observer.repeated()
    for reason in FinishReason:
        observer.ended(reason.name, time_to_first_s=0.02, compute_s=0.1, audio_s=1.0)
