"""Hours of conversation with everything below them: does memory grow, does a turn stick, does sound falter?

    voicemesh bench soak --minutes 60                # starts the four services (mini, offline brain) for itself

`--conversations` people talk at once, half over gRPC, half over WebRTC (`--webrtc`), each by a seeded choice of acts:
typed and spoken questions heard to their end, answers silenced by the keyboard or talked over, silence, messages that
are nonsense, connections that break in mid-answer and are taken up again, streams whose protocol is broken, and calls
that end and begin anew. Every turn has to end. It is stuck when nothing of its conversation moves for `--turn-limit-s`,
or when it is not over after five of these: a long story on a slow machine is no fault, one without an end is.
Memory, threads and open files of every service are read from /proc every `--every-s`; a slope is Theil and Sen's median
over all samples after `--warm-up-minutes`. At the end all slots must be free and no session left.

Exit code 1 when anything of FAULTS is not 0, or, after runs of half an hour at least, when a service's memory grows by
more than `--max-growth-mib` an hour and conversation, or its threads or open files by more than one. What a service
keeps up to a bound has no allowance of its own: it is taken before READY (the recognisers of the brain), full within
the warm-up (pools of threads, what waits for Python's collector), or below 1 MiB (the times of the last 200 turns, and
of 64 ended conversations).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import grpc
import soundfile
import soxr
from voicemesh.gateway.v1 import gateway_pb2, gateway_pb2_grpc

from bench.report import ROOT, Report
from bench.running import Between, Page, Process, process
from bench.soak_calls import HEARD_HZ, WEBRTC_HZ, Call, GrpcCall, Ledger, Lost, Sound, Stuck, WebRtcCall
from bench.soak_watch import Watched, slope_per_hour, watch

SPEECH = ROOT / "tests" / "brain" / "speech"
SPOKEN = ("hello", "sum", "time", "spell", "good_morning", "other_weather")
QUESTIONS = ("hello", "what is two plus three", "spell cat", "what time is it", "help")
STORIES = ("tell me a long story", "count from one to twenty")
RESUME_S = 10
PATIENCE_S = 6.0  # of who talks over an answer
LONGEST = 5  # turn limits that an act may take
LOOKS, RELEASE_S = 10, 4.0  # what an ending session may take, and a second more
SHORTEST_JUDGED_MINUTES = 30
# What must never happen: of these every count must be 0.
FAULTS = (
    "stuck_turns",
    "answers_failed",
    "answers_begun_twice",
    "answers_ended_unbegun",
    "packets_of_answers_that_are_over",
    "rtp_out_of_order",
    "conversations_lost",
    "broken_protocol_let_pass",
    "broken_protocol_kept_a_session",
    "hang_ups_refused",
    "slots_still_leased",
    "sessions_left",
)


@dataclass
class House:
    """What the callers call."""

    channel: grpc.aio.Channel
    http: aiohttp.ClientSession
    url: str
    turn_limit_s: float
    counts: Counter[str]
    stuck: list[dict[str, Any]]
    speech: dict[int, list[Sound]]  # by rate

    @property
    def control(self) -> Any:
        """The unary helpers."""
        return gateway_pb2_grpc.ConversationServiceStub(self.channel)  # type: ignore[no-untyped-call]


class Visitor:
    """One person: call after call, act after act, until the time is up."""

    def __init__(self, house: House, kind: str, chance: random.Random) -> None:
        self._house = house
        self._kind = kind
        self._chance = chance
        self._open: Call | None = None
        self._acts: dict[str, tuple[int, Callable[[], Awaitable[None]]]] = {
            "ask": (5, self._ask),
            "silence": (4, self._silence),
            "say": (4, self._say),
            "talk_over": (5, self._talk_over),
            "be_quiet": (2, self._be_quiet),
            "nonsense": (2, self._nonsense),
            "reconnect": (2, self._reconnect),
        }

    async def visit(self, until_s: float) -> None:
        """All of it. What goes wrong is counted, and another call begun."""
        while time.monotonic() < until_s:
            try:
                await self._one_call(min(until_s, time.monotonic() + self._chance.uniform(30, 120)))
            except (Lost, TimeoutError, OSError) as error:
                what = "stuck_turns" if isinstance(error, Stuck) else "conversations_lost"
                self._house.counts[what] += 1
                told = list(self._open.ledger.last) if self._open else []
                why = str(error) or type(error).__name__
                facts = {"what": what, "kind": self._kind, "why": why, "told": told, "load": os.getloadavg()[0]}
                self._house.stuck.append(facts)
                await self._abandon()
                await asyncio.sleep(1.0)

    async def _abandon(self) -> None:
        if self._open is not None:
            with suppress(Lost, TimeoutError):
                await self._open.lose()
        self._open = None

    @property
    def _call(self) -> Call:
        assert self._open is not None
        return self._open

    async def _one_call(self, until_s: float) -> None:
        await self._opens("")
        names = list(self._acts)
        weights = [weight for weight, _ in self._acts.values()]
        while time.monotonic() < until_s:
            name = self._chance.choices(names, weights)[0]
            await self._act(name, self._acts[name][1])
        if isinstance(self._call, GrpcCall) and self._chance.random() < 0.3:
            await self._break_protocol(self._call)
        else:
            async with asyncio.timeout(self._house.turn_limit_s):
                await self._call.leave()

    async def _opens(self, token: str) -> None:
        house = self._house
        ledger = Ledger(house.counts)
        grpc_call = self._kind == "grpc"
        call: Call = GrpcCall(house.channel, ledger) if grpc_call else WebRtcCall(house.http, house.url, ledger)
        self._open = call  # from here on somebody has to end it
        try:
            async with asyncio.timeout(house.turn_limit_s):
                await call.open(token)
        except TimeoutError:
            raise Lost(f"not {'taken up again' if token else 'opened'} in time") from None
        house.counts["calls"] += 1

    async def _act(self, name: str, act: Callable[[], Awaitable[None]]) -> None:
        self._house.counts[f"acts_{name}"] += 1
        acting = asyncio.create_task(self._acted(act))
        until_s = time.monotonic() + LONGEST * self._house.turn_limit_s
        try:
            while not acting.done():
                stuck_s = self._call.ledger.moved_s + self._house.turn_limit_s
                now_s = time.monotonic()
                if now_s >= min(stuck_s, until_s):
                    raise Stuck(f"{'nothing moves' if stuck_s < until_s else 'no end'} after {name}")
                await asyncio.wait([acting], timeout=min(stuck_s, until_s) - now_s)
            acting.result()
        finally:
            acting.cancel()
            await asyncio.wait([acting])

    async def _acted(self, act: Callable[[], Awaitable[None]]) -> None:
        await act()
        await self._settled()

    async def _settled(self) -> None:
        ledger = self._call.ledger
        await ledger.until(lambda: ledger.is_settled)

    async def _story(self) -> int:
        """Has one told; returns its epoch once it sounds for a while."""
        ledger, known = self._call.ledger, set(self._call.ledger.sounding)
        await self._call.type(self._chance.choice(STORIES))
        await ledger.until(lambda: ledger.sounding - known)
        await asyncio.sleep(self._chance.uniform(0.05, 3.0))
        return max(ledger.sounding)

    def _utter(self) -> float:
        rate_hz = HEARD_HZ if self._kind == "grpc" else WEBRTC_HZ
        return self._call.microphone.say(self._chance.choice(self._house.speech[rate_hz]))

    # Acts.

    async def _ask(self) -> None:
        ledger, turn = self._call.ledger, self._call.ledger.turn
        await self._call.type(self._chance.choice(QUESTIONS))
        await ledger.until(lambda: any(number > turn for number in ledger.answered) and ledger.is_settled)

    async def _silence(self) -> None:
        ledger, epoch = self._call.ledger, await self._story()
        await self._call.silence()
        await ledger.until(lambda: epoch in ledger.over)

    async def _say(self) -> None:
        ledger = self._call.ledger
        turn, utterances = ledger.turn, ledger.utterances
        await asyncio.sleep(self._utter())
        await ledger.until(lambda: ledger.turn > turn or (ledger.utterances > utterances and ledger.is_settled))
        if ledger.turn == turn:  # what nobody understands is no turn
            self._house.counts["said_in_vain"] += 1

    async def _talk_over(self) -> None:
        ledger, epoch = self._call.ledger, await self._story()
        await asyncio.sleep(self._utter())
        try:
            async with asyncio.timeout(PATIENCE_S):
                await ledger.until(lambda: epoch in ledger.over)
        except TimeoutError:  # what nobody understands may pass for noise
            self._house.counts["talked_over_in_vain"] += 1
            await self._call.silence()
            await ledger.until(lambda: epoch in ledger.over)

    async def _be_quiet(self) -> None:
        await asyncio.sleep(self._chance.uniform(1.0, 6.0))

    async def _nonsense(self) -> None:
        await self._call.nonsense()

    async def _reconnect(self) -> None:
        await self._story()
        token = await self._call.lose()
        await asyncio.sleep(self._chance.uniform(0.1, RESUME_S / 4))
        await self._opens(token)

    async def _break_protocol(self, call: GrpcCall) -> None:
        async with asyncio.timeout(self._house.turn_limit_s):
            await call.break_protocol()
        self._house.counts["acts_break_protocol"] += 1
        for _ in range(LOOKS):  # its last words are said when the stream has ended
            listed = await self._house.control.ListSessions(gateway_pb2.ListSessionsRequest())
            if all(one.session_id != call.session_id for one in listed.sessions):
                return
            await asyncio.sleep(RELEASE_S / LOOKS)
        self._house.counts["broken_protocol_kept_a_session"] += 1


def speech() -> dict[int, list[Sound]]:
    """What is said aloud, at both rates."""
    sounds = [soundfile.read(SPEECH / f"{name}.flac", dtype="int16")[0] for name in SPOKEN]
    return {HEARD_HZ: sounds, WEBRTC_HZ: [soxr.resample(one, HEARD_HZ, WEBRTC_HZ) for one in sounds]}


@asynccontextmanager
async def mesh(arguments: argparse.Namespace) -> AsyncIterator[dict[str, Process]]:
    """The four services, with room for everybody."""
    slots = str(2 * arguments.conversations + 2)
    async with AsyncExitStack() as stack:
        up: dict[str, Process] = {}
        for name, more in (
            ("brain", ("--slot-count", slots)),
            ("tts_lm", ("--model", arguments.model, "--slot-count", slots)),
            ("codec", ("--model", arguments.model, "--slot-count", slots, "--no-encode")),
        ):
            up[name] = await stack.enter_async_context(process(name, f"services.{name}", *more))
        flags = [part for name, one in up.items() for part in (f"--{name.replace('_', '-')}-address", one.address)]
        flags += ["--session-resume-s", str(RESUME_S), "--media-interfaces", '["127.0.0.0/8"]', "--http-port", "0"]
        up["gateway"] = await stack.enter_async_context(process("gateway", "services.gateway", *flags))
        yield up


async def soak(arguments: argparse.Namespace, report: Report) -> Counter[str]:
    """Run it; returns all counts."""
    counts: Counter[str] = Counter()
    stuck: list[dict[str, Any]] = []
    async with mesh(arguments) as up, AsyncExitStack() as stack:
        gateway = up["gateway"]
        channel = await stack.enter_async_context(grpc.aio.insecure_channel(gateway.address))
        http = await stack.enter_async_context(aiohttp.ClientSession())
        house = House(channel, http, gateway.ready["http"], arguments.turn_limit_s, counts, stuck, speech())
        watched = [Watched(name, one.pid) for name, one in up.items()] + [Watched("callers", os.getpid())]
        before = {name: await one.page() for name, one in up.items()}
        began_s = time.monotonic()
        watching = asyncio.create_task(watch(watched, arguments.every_s))
        await asyncio.gather(
            *(visitor.visit(began_s + arguments.minutes * 60) for visitor in visitors(arguments, house))
        )
        await ended(house, up, counts)
        watching.cancel()
        with suppress(asyncio.CancelledError):
            await watching
        after = {name: await one.page() for name, one in up.items()}
    judge(report, arguments, counts, watched, began_s)
    told(report, before, after)
    report.configuration["stuck_or_lost"] = stuck[:50]
    return counts


def visitors(arguments: argparse.Namespace, house: House) -> list[Visitor]:
    """Each with a chance of its own."""
    kinds = ["webrtc"] * arguments.webrtc + ["grpc"] * (arguments.conversations - arguments.webrtc)
    return [Visitor(house, kind, random.Random(arguments.seed * 1000 + number)) for number, kind in enumerate(kinds)]


async def ended(house: House, up: dict[str, Process], counts: Counter[str]) -> None:
    """Whether everything is given back, within twice the time that a lost caller is waited for."""
    leased, left = 0.0, 0
    for _ in range(2 * RESUME_S + 5):
        pages = [await one.page() for name, one in up.items() if name != "gateway"]
        leased = sum(value for page in pages for (name, _), value in page.items() if name == "voicemesh_slot_usage")
        left = len((await house.control.ListSessions(gateway_pb2.ListSessionsRequest())).sessions)
        if not leased and not left:
            break
        await asyncio.sleep(1.0)
    counts["slots_still_leased"], counts["sessions_left"] = round(leased), left


def judge(
    report: Report, arguments: argparse.Namespace, counts: Counter[str], watched: Sequence[Watched], began_s: float
) -> None:
    """What each process holds, and what is a fault."""
    judged = arguments.minutes >= SHORTEST_JUDGED_MINUTES
    since_s = began_s + 60 * (arguments.warm_up_minutes if arguments.minutes > 2 * arguments.warm_up_minutes else 0)
    for one in watched:
        seen = one.since(since_s) or one.seen
        for what, unit, allowed in (
            ("memory", "_mib", arguments.max_growth_mib),
            ("threads", "", 1),
            ("open_files", "", 1),
        ):
            held = [(each.at_s, getattr(each, what + unit)) for each in seen]
            growth = slope_per_hour(held)
            report.add(what + unit, [value for _, value in held], process=one.name)
            report.value(f"{what}_growth{unit}_per_hour", growth, process=one.name)
            if judged and one.name != "callers" and growth > allowed * arguments.conversations:
                counts[f"{what}_of_{one.name}_grow"] += 1
    for name, count in sorted(counts.items()):
        report.value(name, count)


def told(report: Report, before: dict[str, Page], after: dict[str, Page]) -> None:
    """What the services themselves counted."""
    gateway = Between(before["gateway"], after["gateway"])
    for name in ("voicemesh_playout_underruns_total", "voicemesh_pacer_skipped_total", "voicemesh_stream_stale_total"):
        report.value(name, gateway.grown(name))
    report.value("voicemesh_playout_pause_s", gateway.grown("voicemesh_playout_pause_seconds_total"))
    for share in (0.5, 0.95, 0.99):
        late = gateway.quantile("voicemesh_turn_time_to_first_audio_seconds", share)
        if late is not None:
            report.value(f"time_to_first_audio_p{share * 100:.0f}_s", late)


def faults(counts: Counter[str]) -> dict[str, int]:
    """Those that are not 0."""
    return {name: count for name, count in counts.items() if count and (name in FAULTS or name.endswith("_grow"))}


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="voicemesh bench soak", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--conversations", type=int, default=4, help="at once")
    parser.add_argument("--webrtc", type=int, help="of them over WebRTC; default: half")
    parser.add_argument("--model", default="voices/mini", help="a checkpoint")
    parser.add_argument("--turn-limit-s", type=float, default=60.0, help="a turn that takes longer is stuck")
    parser.add_argument("--warm-up-minutes", type=float, default=10.0, help="before memory is judged")
    parser.add_argument("--max-growth-mib", type=float, default=1.0, help="of a service, an hour and conversation")
    parser.add_argument("--every-s", type=float, default=5.0, help="between two looks at the processes")
    parser.add_argument("--seed", type=int, default=1, help="of what people do and when")
    parser.add_argument("--json", action="store_true", help="print the report instead of a table, and write no file")
    parser.add_argument("--out", type=Path, help="directory of the report; default bench/results")
    arguments = parser.parse_args(argv)
    if arguments.webrtc is None:
        arguments.webrtc = arguments.conversations // 2
    facts = {name: value for name, value in vars(arguments).items() if name not in ("json", "out")}
    report = Report("soak", facts)
    wrong = faults(asyncio.run(soak(arguments, report)))
    report.configuration["load_1min_at_the_end"] = round(os.getloadavg()[0], 2)
    if arguments.json:
        print(json.dumps(report.document()))
    else:
        print(report.table())
        print(report.write(arguments.out) if arguments.out else report.write())
    print(f"faults: {wrong or 'none'}", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
