"""The talker's own loop and the codec's own scheduler in virtual time: a step lasts what it was measured to last.

Nothing here decides who runs: `services.tts_lm.loop.Loop` takes its commands from a calendar instead of a queue, its
time from a clock that only steps and waiting move, and its frames from a runner that computes nothing. The codec's
steps are planned by `services.codec.schedule.plan_step`. Both stages are taken to have a core (or stream) each; the
gateway and the wire are not in it.
"""

from __future__ import annotations

import heapq
import queue
import random
import time
from bisect import bisect_right
from collections.abc import Callable
from collections.abc import Sequence as Items
from dataclasses import dataclass, field
from functools import partial
from itertools import count, pairwise
from typing import Any

from common.observer import NOBODY, Observer
from common.playout import Playout
from common.slots import Lease
from common.stream import FinishReason
from services.codec.schedule import Buckets, Want
from services.codec.schedule import plan_step as plan_codec_step
from services.tts_lm.commands import Begin, Close, Command, Done, Frames, Text
from services.tts_lm.loop import Loop
from services.tts_lm.model.prompt import Prompt, PromptRow, Script
from services.tts_lm.prefix import prefix_of
from services.tts_lm.scheduler import DEFAULT, Policy, StepPlan
from services.tts_lm.sequence import ResolvedSampling, Sequence, Terms

FRAME_S = 0.08
EOS = 1 << 20  # of no codebook
HEAD_ROWS = 9
_SAMPLING = ResolvedSampling(0, True, 1.0, 0, 1.0, 1.0, True, 1.0, 0, 1.0)
_QUANTILES = (("min", 0.0), ("p50", 0.5), ("p95", 0.95), ("p99", 0.99), ("max", 1.0))


class Times:
    """Seconds by size, drawn from measured quantiles; straight lines between the sizes and beyond the last one."""

    def __init__(self, figures: Items[dict[str, Any]]) -> None:
        known = sorted((int(figure.get("rows", 1)), figure) for figure in figures if "p50" in figure)
        if not known:
            raise ValueError("the report has no step times")
        self._sizes = [size for size, _ in known]
        self._figures = [figure for _, figure in known]

    def draw(self, size: int, share: float) -> float:
        """What that share of the steps of a size stay below."""
        place = bisect_right(self._sizes, size)
        first = min(max(place - 1, 0), max(len(self._sizes) - 2, 0))
        if len(self._sizes) == 1:
            return self._at(0, share) * max(size, 1) / self._sizes[0]
        a, b = self._sizes[first], self._sizes[first + 1]
        low, high = self._at(first, share), self._at(first + 1, share)
        if size <= a:
            return low
        slope = (high - low) / (b - a)
        return low + (size - a) * (max(0.0, slope) if size > b else slope)

    def _at(self, index: int, share: float) -> float:
        figure = self._figures[index]
        for (name, a), (next_name, b) in pairwise(_QUANTILES):
            if share <= b:
                return float(figure[name] + (share - a) / (b - a) * (figure[next_name] - figure[name]))
        raise ValueError(f"{share} is no share")


@dataclass(frozen=True)
class Machine:
    """What a report of `bench steps` says: talker steps and prompts by rows, codec steps by frames per row and rows."""

    steps: Times
    prompts: Times | None
    codec: dict[int, Times]
    buckets: Buckets | None

    @classmethod
    def read(cls, report: dict[str, Any], *, cpu_time: bool = False) -> Machine:
        """From a report of `bench steps`, by the clock or by the processor's time; one of `bench tts_lm` gives the
        talker's frame alone."""
        kind = "cpu_s" if cpu_time else "s"
        figures = [f for f in report["figures"] if f.get("side", "ours") == "ours"]
        all_steps = [f for f in figures if f["name"] in (f"step_{kind}", "frame_s")]
        steps = [f for f in all_steps if f.get("stage", "tts_lm") == "tts_lm"]
        prompts = [f for f in figures if f["name"] == f"prefill_{kind}"]
        shapes = [f for f in all_steps if f.get("stage") == "codec"]
        sizes = sorted({f["frames"] for f in shapes})
        codec = {frames: Times([f for f in shapes if f["frames"] == frames]) for frames in sizes}
        rows = tuple(sorted({f["rows"] for f in shapes}))
        most = max((f["rows"] * f["frames"] for f in shapes), default=0)
        buckets = Buckets(rows, tuple(sizes), most, pad_rows=False) if shapes else None
        return cls(Times(steps), Times(prompts) if prompts else None, codec, buckets)


class Calendar:
    """What will be said to the loop, and when; where it waits, the clock goes on to the next of them."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self._due: list[tuple[float, int, Callable[[], Command | None]]] = []
        self._order = count()

    def at(self, due_s: float, make: Callable[[], Command | None]) -> None:
        """Then `make` is called for the command to give, or None for none."""
        heapq.heappush(self._due, (due_s, next(self._order), make))

    def put(self, command: Command, /) -> None:
        self.at(self.now_s, lambda: command)

    def get(self, block: bool = True, timeout: float | None = None) -> Command:
        """The next command that is due; `Close` when nothing will ever come."""
        until_s = self.now_s if not block else (float("inf") if timeout is None else self.now_s + timeout)
        while self._due and self._due[0][0] <= until_s:
            due_s, _, make = heapq.heappop(self._due)
            self.now_s = max(self.now_s, due_s)
            if (command := make()) is not None:
                return command
        if block and timeout is None:
            return Close()
        self.now_s = until_s
        raise queue.Empty


class TimedRunner:
    """Computes nothing, for as long as it would have taken. A sequence ends after as many frames as `lengths` says."""

    def __init__(self, machine: Machine, calendar: Calendar, seed: int, page_count: int, page_size: int) -> None:
        self.page_count, self.page_size = page_count, page_size
        self.lengths: dict[int, int] = {}  # by id of the sequence
        self.steps: list[tuple[float, int]] = []  # seconds and rows of each step
        self._machine, self._calendar, self._draw = machine, calendar, random.Random(seed)

    def launch(self, plan: StepPlan) -> Callable[[], list[tuple[int, ...]]]:
        return partial(self._frames, plan)

    def _frames(self, plan: StepPlan) -> list[tuple[int, ...]]:
        prompts = sum(s.next_row_count() for s in plan.prefills if s.next_row_count() > 1)
        fills = sum(len(fill.rows) for fill in plan.fills)
        share = self._draw.random()
        took_s = sum(self._prompt_s(rows, share) for rows in (prompts, fills) if rows)
        if plan.sequences:
            took_s += self._machine.steps.draw(len(plan.sequences), share)
            self.steps.append((took_s, len(plan.sequences)))
        self._calendar.now_s += took_s
        return [(EOS if s.frame_count >= self.lengths[id(s)] else self._draw.randrange(1000),) for s in plan.sequences]

    def _prompt_s(self, rows: int, share: float) -> float:
        """What a pass over so many prompt rows adds to a step."""
        if self._machine.prompts is None:
            return self._machine.steps.draw(1, share)
        alone = self._machine.steps.draw(1, share)
        return max(0.0, self._machine.prompts.draw(rows, share) - alone)


@dataclass(eq=False)
class Speech:
    """One utterance of the simulation, and what came of it: frames as (when, how many), sound as (when, seconds)."""

    asked_s: float
    frames: list[tuple[float, int]] = field(default_factory=list)
    sound: list[tuple[float, float]] = field(default_factory=list)
    hit: bool = False
    reason: FinishReason | None = None

    @property
    def heard_s(self) -> float:
        """When a listener who never waited has heard all of it."""
        return self.frames[0][0] + FRAME_S * sum(frames for _, frames in self.frames) if self.frames else self.asked_s


class Ids:
    """The two ids that a script needs of a configuration."""

    tts_eos, tts_pad = EOS, EOS + 1


class House:
    """The talker of the simulation: `say` asks for an utterance at a moment; `run` plays everything through."""

    def __init__(
        self,
        machine: Machine,
        *,
        slot_count: int = 256,
        page_count: int = 1 << 14,
        policy: Policy = DEFAULT,
        seed: int = 0,
        ramp: tuple[int, ...] = (1, 2, 4),
        voices: int = 8,
        prefix_pages: int = 64,
        observer: Observer = NOBODY,
    ) -> None:
        self.machine, self._ramp, self._voices = machine, ramp, voices
        self.calendar = Calendar()
        self.runner = TimedRunner(machine, self.calendar, seed, page_count, 64)
        self.loop = Loop(
            self.runner,
            self._take,
            observer,
            policy=policy,
            prefix_pages=prefix_pages,
            clock=lambda: self.calendar.now_s,
            commands=self.calendar,
        )
        self.speeches: list[Speech] = []
        self.refused_count = 0
        self.host_s = 0.0  # what planning and bookkeeping cost the processor that simulates, outside virtual time
        self._speaking: dict[int, Speech] = {}
        self._after: dict[int, Callable[[float], None]] = {}
        self._free = list(range(slot_count))

    def say(
        self,
        at_s: float,
        frame_count: int,
        token_count: int,
        *,
        voice: int = 0,
        tokens_per_s: float = 0.0,
        text_after_s: float = 0.0,
        after: Callable[[float], None] | None = None,
    ) -> None:
        """An utterance of that length; its text at once or later, or so many tokens a second. `after` is told
        when it has been heard."""

        def begin() -> Command | None:
            now_s = self.calendar.now_s
            speech = Speech(now_s)
            self.speeches.append(speech)
            if not self._free:
                self.refused_count += 1
                speech.reason = FinishReason.FAILED
                return None
            sequence = self._sequence(self._free.pop(), voice)
            assert sequence.prefix is not None
            speech.hit = self.loop.prefixes.holds(sequence.prefix.key)
            self.runner.lengths[id(sequence)] = frame_count
            self._speaking[id(sequence)] = speech
            if after is not None:
                self._after[id(sequence)] = after
            self._feed(sequence, now_s + text_after_s, token_count, tokens_per_s)
            return Begin(sequence, now_s)

        self.calendar.at(at_s, begin)

    def run(self) -> None:
        """To the end of the last utterance; then the codec's part."""
        began = time.process_time()
        self.loop.run()
        self.host_s = time.process_time() - began
        if self.machine.buckets is not None:
            decode(self.speeches, self.machine)
        else:
            for speech in self.speeches:
                speech.sound = [(time_s, frames * FRAME_S) for time_s, frames in speech.frames]

    def _feed(self, sequence: Sequence, now_s: float, token_count: int, tokens_per_s: float) -> None:
        if not tokens_per_s:
            self.calendar.at(now_s, lambda: Text(sequence, tuple(range(token_count)), now_s, finished=True))
            return
        for i in range(token_count):
            due_s, last = now_s + i / tokens_per_s, i == token_count - 1
            self.calendar.at(due_s, partial(Text, sequence, (i,), due_s, last))

    def _sequence(self, slot: int, voice: int) -> Sequence:
        head = tuple(PromptRow(voice % self._voices, row) for row in range(HEAD_ROWS))
        prompt = Prompt(head, "streaming", None, (), 1, 2, Ids.tts_pad)
        terms = Terms(1 << 30, 1 << 30, None, 1 << 30, self._ramp, None, False, EOS, FRAME_S)
        script = Script(Ids())  # type: ignore[arg-type]
        return Sequence(Lease(slot, 1), prompt, script, _SAMPLING, None, terms, prefix_of(prompt, (), None))

    def _take(self, events: Items[Frames | Done]) -> None:
        for event in events:
            speech = self._speaking[id(event.sequence)]
            if isinstance(event, Frames):
                speech.frames.append((event.produced_at_s, len(event.packet.codes)))
                continue
            speech.reason = event.reason
            self._free.append(event.sequence.slot)
            del self._speaking[id(event.sequence)], self.runner.lengths[id(event.sequence)]
            after = self._after.pop(id(event.sequence), None)
            if after is not None:
                after(max(self.calendar.now_s, speech.heard_s))


def decode(speeches: Items[Speech], machine: Machine) -> None:
    """Give every speech its sound: the codec takes frames as they come, in the steps that its own scheduler plans."""
    assert machine.buckets is not None
    due = sorted((time_s, i, frames) for i, speech in enumerate(speeches) for time_s, frames in speech.frames)
    waiting: dict[int, int] = {}
    served: dict[int, int] = {}
    clocks = [Playout(FRAME_S) for _ in speeches]
    now_s, step, at = 0.0, 0, 0
    draw = random.Random(1)
    while at < len(due) or waiting:
        if not waiting:
            now_s = max(now_s, due[at][0])
        while at < len(due) and due[at][0] <= now_s:
            waiting[due[at][1]] = waiting.get(due[at][1], 0) + due[at][2]
            at += 1
        wants = [
            Want(i, n, not clocks[i].begun, served.get(i, -1), clocks[i].lead_s(now_s)) for i, n in waiting.items()
        ]
        plan = plan_codec_step(wants, machine.buckets)
        assert plan is not None
        now_s += machine.codec[plan.frames].draw(len(plan.slots), draw.random())
        step += 1
        for i in plan.slots:
            clocks[i].sent(plan.frames, now_s)
            speeches[i].sound.append((now_s, plan.frames * FRAME_S))
            served[i] = step
            waiting[i] -= plan.frames
            if not waiting[i]:
                del waiting[i]
