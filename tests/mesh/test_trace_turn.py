"""A spoken turn through four processes is one trace that says where its time went, and whom it was cut by."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from voicemesh.gateway.v1 import gateway_pb2

from common.stage import duration
from common.telemetry import Attribute, Milestone
from tests.gateway.session.talker import talking
from tests.mesh.otlp import Sink, sink
from tests.mesh.processes import end
from tests.mesh.test_converse import Microphone
from tests.mesh.test_trace import address_of, launch

STAGES = ("brain.respond", "tts_lm.generate", "codec.decode", "gateway.playout")
MILESTONES = [it for it in Milestone if it is not Milestone.FIRST_OPUS]  # WebRTC alone waits for an encoder
SERVICE_OF = {"turn": "gateway", "brain.respond": "brain", "tts_lm.generate": "tts_lm", "codec.decode": "codec"}
pytestmark = [pytest.mark.timeout(120), pytest.mark.asyncio(loop_scope="module")]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def mesh() -> AsyncIterator[tuple[Sink, str]]:
    """A collector, and the address of a gateway over the offline brain and the two tone fakes: four processes."""
    async with sink() as spans:
        processes: list[subprocess.Popen[bytes]] = []
        try:
            processes.append(launch("services.brain", endpoint=spans.endpoint))
            processes += [launch("tests.fakes", name, endpoint=spans.endpoint) for name in ("tts_lm", "codec")]
            found = [await asyncio.to_thread(address_of, process) for process in processes]
            names = ("--brain-address", "--tts-lm-address", "--codec-address")
            where = [part for pair in zip(names, found, strict=True) for part in pair]
            processes.append(launch("services.gateway", "--no-http", *where, endpoint=spans.endpoint))
            yield spans, await asyncio.to_thread(address_of, processes[-1])
        finally:
            await asyncio.gather(*(asyncio.to_thread(end, process) for process in processes))
            for process in processes:
                assert process.stdout is not None
                process.stdout.close()


async def test_a_spoken_turn_is_one_trace_with_every_milestone_and_its_parts_add_up(mesh) -> None:
    spans, address = mesh
    async with talking(address) as talker, Microphone(talker) as microphone:
        microphone.say("sum")
        await talker.told("turn_measured")  # the answer sounds
        (epoch,) = talker.audio
        report = gateway_pb2.PlaybackReport(first_audible_delay=duration(0.03))
        await talker.send(playback=report, epoch=epoch)
        await talker.answered()
        measured = [event for event in talker.events if event.type == "turn_measured"][-1]
        (root,) = await spans.wait_for_roots("turn", 1)
    trace = await spans.wait_for(root.trace_id, "turn", *STAGES)

    assert {name: trace[name].service for name in SERVICE_OF} == SERVICE_OF
    assert {trace[name].parent_id for name in STAGES} == {root.span_id}
    assert [Milestone(name) for name in root.events] == MILESTONES
    times_s = [root.event_times_s[milestone] for milestone in MILESTONES]
    assert times_s == sorted(times_s)
    assert {span.attributes[Attribute.FINISH_REASON] for span in trace.values()} == {"COMPLETED"}

    first_audio_s = root.event_times_s["playout_first"] - root.event_times_s["user_speech_end"]
    assert root.attributes[Attribute.TIME_TO_FIRST_AUDIO_MS] == pytest.approx(1000 * first_audio_s, abs=5)
    told = {one.name: one.since_user_speech_end.ToNanoseconds() / 1e9 for one in measured.milestones}
    assert told["playout_first"] == pytest.approx(first_audio_s, abs=0.005)
    # What a stage says of itself lies between the gateway's moments around it.
    assert trace["tts_lm.generate"].event_times_s["tts_first_frame"] <= root.event_times_s["tts_first_frame"]
    assert trace["codec.decode"].event_times_s["codec_first_pcm"] <= root.event_times_s["codec_first_pcm"]


async def test_a_turn_that_was_cut_short_is_cancelled_and_links_to_the_turn_that_cut_it(mesh) -> None:
    spans, address = mesh
    before = len(await spans.wait_for_roots("turn", 1))
    async with talking(address) as talker:
        await talker.type("tell me a long story")
        story = await talker.heard(0.3)
        await talker.type("hello")
        await talker.until(lambda: story in talker.ended and len(talker.ended) >= 2)
        cut, cutter = (await spans.wait_for_roots("turn", before + 2))[-2:]
    assert cut.attributes[Attribute.FINISH_REASON] == "CANCELLED"
    assert cutter.attributes[Attribute.FINISH_REASON] == "COMPLETED"
    assert cut.trace_id != cutter.trace_id
    assert (cutter.trace_id, cutter.span_id) in cut.links
    stages = await spans.wait_for(cut.trace_id, "tts_lm.generate", "codec.decode")
    assert stages["tts_lm.generate"].attributes[Attribute.FINISH_REASON] == "CANCELLED"
