"""What the gateway's media cost in time: the receive path on good and bad networks beside aiortc's own, the pacer with
eight calls, Opus and the echo canceller per block, and, if asked, the drift of a real ten-minute call.

Both ends of every call live in this process, on loopback; bad networks are seeded relays (tests/impairment).
A delay is from when a block is handed to the person's encoder until its sound is given to the conversation (ours), or
comes out of the track (aiortc). What a network itself delays is in it.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, suppress
from typing import Any

import numpy as np
from aiortc import RTCConfiguration, RTCPeerConnection, RTCSessionDescription
from aiortc.mediastreams import MediaStreamError

from bench.report import Report
from services.gateway.media import ice
from services.gateway.media.echo import EchoCanceller
from services.gateway.media.opus import Decoder, Encoder
from services.gateway.media.pacer import LATENESS_EDGES_S
from tests.gateway.media.people import LOOPBACK, Call, House, Person, call, house
from tests.gateway.media.rooms import voice
from tests.impairment.path import Impairment
from tests.impairment.udp import UdpRelay

NETWORKS = {
    "clean": Impairment(),
    "1 % loss": Impairment(loss=0.01),
    "5 % loss": Impairment(loss=0.05),
    "jitter 0-50 ms in order": Impairment(jitter_s=0.05, in_order=True),
    "jitter 50-150 ms reordered": Impairment(delay_s=0.05, jitter_s=0.1),
    "jitter 50-150 ms reordered, 5 % loss": Impairment(delay_s=0.05, jitter_s=0.1, loss=0.05),
    "a stall of 0.6 s": Impairment(stalls=((2.0, 2.6),), in_order=True),
}
SPEECH = voice(20.0, 24000, 130)
FRAME_SAMPLES = 1920  # 80 ms
AUDIBLE = 100.0  # -50 dBFS, rms of a packet


def block(number: int) -> Any:
    at = number * 480 % (SPEECH.size - 480)
    return SPEECH[at : at + 480]


async def ours(network: Impairment, seconds: float, report: Report, name: str) -> None:
    """One call whose uplink goes through the network."""
    async with house() as at, call(at, up=network, seed=5) as one:
        one.person.speech = block
        await asyncio.sleep(seconds)
        delays = our_delays(one)
        counts = one.peer.stats.received
    report.add("receive_delay_s", delays, path="ours", network=name)
    report.value("packets_lost_by_the_network", one.relay.up.fate.lost if one.relay else 0, path="ours", network=name)
    for kind in ("recovered", "concealed", "silenced", "late"):
        report.value(f"packets_{kind}", getattr(counts, kind), path="ours", network=name)


def our_delays(one: Call) -> list[float]:
    """By the position in the sound: every 20 ms that were said are in what was heard, whatever became of them."""
    said = dict(zip(one.person.slots, one.person.said, strict=False))
    delays, position = [], 0
    for at_s, _, samples in one.talk.heard:
        last = (position + samples.size) // 320 - 1
        if last in said:
            delays.append(at_s - said[last])
        position += samples.size
    return delays


async def theirs(network: Impairment, seconds: float, report: Report, name: str) -> None:
    """The same call into aiortc's own jitter buffer and decoder."""
    person, far = Person(), RTCPeerConnection(RTCConfiguration(iceServers=[]))
    person.speech = block
    came: list[tuple[int, float]] = []
    tasks: list[asyncio.Task[None]] = []

    async def take(track: Any) -> None:
        with suppress(MediaStreamError):
            while True:
                frame = await track.recv()
                came.append((round(frame.pts / 960), time.monotonic()))

    far.on("track", lambda track: tasks.append(asyncio.ensure_future(take(track))))
    async with UdpRelay(up=network, seed=5) as relay:
        offer = relay.offer(await person.offer())
        with ice.using(LOOPBACK):
            await far.setRemoteDescription(RTCSessionDescription(offer, "offer"))
            await far.setLocalDescription(await far.createAnswer())
        await person.take(relay.answer(far.localDescription.sdp))
        await asyncio.sleep(seconds)
        await person.close()
        await far.close()
    await asyncio.gather(*tasks)
    said = dict(zip(person.slots, person.said, strict=False))
    report.add(
        "receive_delay_s", [at_s - said[slot] for slot, at_s in came if slot in said], path="aiortc", network=name
    )
    report.value("packets_missing", len(person.said) - len(came), path="aiortc", network=name)


async def crowd(peers: int, speaking: int, seconds: float, report: Report) -> None:
    """Many calls, some of which are answered as a real-time speech stage would: 80 ms at a time, 240 ms ahead."""
    async with AsyncExitStack() as stack:
        at = await stack.enter_async_context(house())
        calls = [await stack.enter_async_context(call(at)) for _ in range(peers)]
        for one in calls:
            one.person.speech = block
        before = snapshot(at)
        cpu_s, wall_s = time.process_time(), time.monotonic()
        await asyncio.gather(*(answer(one, seconds) for one in calls[:speaking]), asyncio.sleep(seconds))
        used = (time.process_time() - cpu_s) / (time.monotonic() - wall_s)
        lateness = [after - first for after, first in zip(at.pacer.lateness.counts, before, strict=True)]
        report.value("cores_used_by_both_ends", used, peers=peers, speaking=speaking)
        report.value("underruns", sum(one.talk.playout.underruns for one in calls), peers=peers, speaking=speaking)
        report.value("slots_skipped", at.pacer.lateness.skipped_slots, peers=peers, speaking=speaking)
        report.value("slots", sum(lateness), peers=peers, speaking=speaking)
        report.value("send_lateness_p50_below_s", quantile(lateness, 0.5), peers=peers, speaking=speaking)
        report.value("send_lateness_p99_below_s", quantile(lateness, 0.99), peers=peers, speaking=speaking)
        report.add("receive_delay_s", [delay for one in calls for delay in our_delays(one)], path="ours", peers=peers)


async def answer(one: Call, seconds: float) -> None:
    """Frames as they would come."""
    begin_s, offset = time.monotonic(), 0
    while (now_s := time.monotonic()) < begin_s + seconds:
        while offset < (now_s - begin_s + 0.24) * 24000:
            at = offset % (SPEECH.size - FRAME_SAMPLES)
            one.talk.playout.enqueue(1, offset, SPEECH[at : at + FRAME_SAMPLES])
            offset += FRAME_SAMPLES
        await asyncio.sleep(0.02)
    one.talk.playout.end(1)


def snapshot(at: House) -> list[int]:
    return list(at.pacer.lateness.counts)


def quantile(counts: Sequence[int], share: float) -> float:
    """The edge of the histogram below which this share lies."""
    seen, wanted = 0, share * sum(counts)
    for count, edge in zip(counts, (*LATENESS_EDGES_S, float("inf")), strict=True):
        seen += count
        if seen >= wanted:
            return edge
    return float("inf")


async def silences(count: int, report: Report) -> None:
    """From the decision to hold until the last packet that can be heard has arrived at the person's end."""
    tone = (8000 * np.sin(2 * np.pi * 500 * np.arange(24000 * 2 * count) / 24000)).astype(np.int16)
    async with house() as at, call(at) as one:
        one.talk.playout.enqueue(1, 0, tone)
        decided: list[tuple[float, float]] = []
        for number in range(count):
            await asyncio.sleep(0.3 + number % 20 / 1000)
            began_s = time.monotonic()
            one.talk.playout.hold()
            await asyncio.sleep(0.3)
            decided.append((began_s, time.monotonic()))
            one.talk.playout.resume()
        decoder = Decoder(24000)
        loud = [
            arrival.at_s
            for arrival in one.person.arrivals
            if np.sqrt(np.mean(np.square(decoder.decode(arrival.payload), dtype=float))) > AUDIBLE
        ]
    report.add(
        "hold_to_last_audible_packet_s",
        [max((at_s for at_s in loud if since <= at_s < until), default=since) - since for since, until in decided],
    )


async def drift(minutes: float, report: Report) -> None:
    """RTP time against the clock, over a real call."""
    async with house() as at, call(at) as one:
        await asyncio.sleep(minutes * 60)
        first, *_, last = one.person.arrivals
        media_s = ((last.timestamp - first.timestamp) & 0xFFFFFFFF) / 48000
        report.value("drift_s", last.at_s - first.at_s - media_s, minutes=minutes)
        report.value("slots_skipped", at.pacer.lateness.skipped_slots, minutes=minutes)


def compute(report: Report) -> None:
    """What a block costs the thread that makes it."""
    encoder, decoder, echo = Encoder(), Decoder(), EchoCanceller.if_installed()
    packets: list[bytes] = []
    report.add("opus_encode_s", timed(500, lambda n: packets.append(encoder.encode(block(n)))))
    report.add("opus_decode_s", timed(500, lambda n: decoder.decode(packets[n])))
    if echo is not None:
        near = np.zeros(320, np.int16)

        def clean(number: int) -> None:
            echo.played(block(number))
            echo.cleaned(near)

        report.add("echo_per_block_s", timed(500, clean))


def timed(count: int, work: Callable[[int], object]) -> list[float]:
    times = []
    for number in range(count):
        began = time.perf_counter()
        work(number)
        times.append(time.perf_counter() - began)
    return times


async def measure(arguments: argparse.Namespace) -> Report:
    report = Report("media", {"seconds": arguments.seconds, "peers": arguments.peers, "speaking": arguments.speaking})
    compute(report)
    runs: tuple[Callable[..., Awaitable[None]], ...] = (ours, theirs)
    for name in arguments.networks:
        for run in runs:
            await run(NETWORKS[name], arguments.seconds, report, name)
    await silences(arguments.holds, report)
    await crowd(arguments.peers, arguments.speaking, arguments.seconds, report)
    if arguments.drift_minutes:
        await drift(arguments.drift_minutes, report)
    return report


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print the table, write the report."""
    parser = argparse.ArgumentParser(prog="voicemesh bench media", description=(__doc__ or "").split("\n\n", 1)[0])
    parser.add_argument("--seconds", type=float, default=10.0, help="of each call (default 10)")
    parser.add_argument("--networks", nargs="*", choices=NETWORKS, default=list(NETWORKS), help="default: all")
    parser.add_argument("--peers", type=int, default=8, help="calls at once (default 8)")
    parser.add_argument("--speaking", type=int, default=4, help="of these, answered all the time (default 4)")
    parser.add_argument("--holds", type=int, default=30, help="of an answer, until it is silent (default 30)")
    parser.add_argument("--drift-minutes", type=float, default=0.0, help="of a call on whose end drift is measured")
    parser.add_argument("--json", action="store_true", help="print the report instead of a table, and write no file")
    arguments = parser.parse_args(argv)
    report = asyncio.run(measure(arguments))
    if arguments.json:
        print(json.dumps(report.document()))
    else:
        print(report.table())
        print(report.write())
    return 0


if __name__ == "__main__":
    sys.exit(main())
