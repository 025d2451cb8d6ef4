"""One utterance through three processes is one trace, and a turn that was cut short says by whom."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
import pytest_asyncio
from voicemesh.gateway.v1 import gateway_pb2, gateway_pb2_grpc
from voicemesh.stream.v1 import stream_pb2
from voicemesh.tts_lm.v1 import tts_lm_pb2

from tests.mesh.otlp import Sink, sink
from tests.mesh.processes import end, read_ready_lines, start

ALONE, CUT, CUTTER = "11" * 16, "22" * 16, "33" * 16
CALLER = "ab" * 8
STAGES = ("gateway.synthesize", "tts_lm.generate", "codec.decode")
pytestmark = [pytest.mark.timeout(60), pytest.mark.asyncio(loop_scope="module")]


def launch(*arguments: str, endpoint: str) -> subprocess.Popen[bytes]:
    """A process on a free port that exports its spans quickly."""
    flags = ("--port", "0", "--no-metrics", "--otlp-endpoint", endpoint)
    return start(["-m", *arguments, *flags], {"OTEL_BSP_SCHEDULE_DELAY": "50"})


def address_of(process: subprocess.Popen[bytes]) -> str:
    (ready,) = read_ready_lines(process, 1, timeout_s=30).values()
    return ready["address"]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def mesh() -> AsyncIterator[tuple[Sink, str]]:
    """A collector, and the address of a gateway over a talker and a codec: four processes."""
    async with sink() as spans:
        fakes = (("tests.fakes", name, "--step-s", "0.02") for name in ("tts_lm", "codec"))
        stages = [launch(*fake, endpoint=spans.endpoint) for fake in fakes]
        processes = list(stages)
        try:
            talker, codec = map(address_of, stages)
            where = ("--tts-lm-address", talker, "--codec-address", codec)
            processes.append(launch("services.gateway", *where, endpoint=spans.endpoint))
            yield spans, address_of(processes[-1])
        finally:
            # The collector answers in this loop, and they send it their last spans.
            await asyncio.gather(*(asyncio.to_thread(end, process) for process in processes))
            for process in processes:
                assert process.stdout is not None
                process.stdout.close()


def start_in(trace_id: str) -> gateway_pb2.SynthesizeRequest:
    trace = stream_pb2.TraceContext(traceparent=f"00-{trace_id}-{CALLER}-01")
    return gateway_pb2.SynthesizeRequest(
        start=gateway_pb2.SynthesizeStart(speech=tts_lm_pb2.GenerateStart(trace=trace)), session_id="s"
    )


async def hear_until(call: Any, payload: str) -> None:
    heard = ""
    while heard != payload:
        heard = (await call.read()).WhichOneof("payload")


async def test_one_utterance_through_three_processes_is_one_trace(mesh):
    spans, address = mesh
    async with grpc.aio.insecure_channel(address) as channel:
        call = gateway_pb2_grpc.SpeechServiceStub(channel).Synthesize()
        await call.write(start_in(ALONE))
        await call.write(gateway_pb2.SynthesizeRequest(text="hello"))
        await call.write(gateway_pb2.SynthesizeRequest(flush=stream_pb2.Flush()))
        await hear_until(call, "ended")
        trace = await spans.wait_for(ALONE, *STAGES)
        call.cancel()
    root = trace["gateway.synthesize"]
    assert root.parent_id == CALLER
    assert trace["tts_lm.generate"].parent_id == trace["codec.decode"].parent_id == root.span_id
    assert {span.service for span in trace.values()} == {"gateway", "tts_lm", "codec"}
    assert "tts_first_frame" in trace["tts_lm.generate"].events
    assert "codec_first_pcm" in trace["codec.decode"].events
    assert {span.attributes["voicemesh.finish_reason"] for span in trace.values()} == {"COMPLETED"}
    assert {span.attributes["voicemesh.session.id"] for span in trace.values()} == {"s"}


async def test_an_utterance_that_was_cut_short_links_to_the_one_that_cut_it(mesh):
    spans, address = mesh
    async with grpc.aio.insecure_channel(address) as channel:
        call = gateway_pb2_grpc.SpeechServiceStub(channel).Synthesize()
        await call.write(start_in(CUT))
        await call.write(gateway_pb2.SynthesizeRequest(text="a long story" * 50))
        await hear_until(call, "audio")
        await call.write(start_in(CUTTER))
        await call.write(gateway_pb2.SynthesizeRequest(flush=stream_pb2.Flush()))
        await hear_until(call, "ended")
        await hear_until(call, "ended")
        cut, cutter = await asyncio.gather(spans.wait_for(CUT, *STAGES), spans.wait_for(CUTTER, *STAGES))
        call.cancel()
    assert {span.attributes["voicemesh.finish_reason"] for span in cut.values()} == {"CANCELLED"}
    assert (CUTTER, cutter["gateway.synthesize"].span_id) in cut["gateway.synthesize"].links
