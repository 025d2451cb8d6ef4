"""How many sessions fit this machine: the real scheduler in virtual time, on measured step times.

`bench steps` measures what steps cost; this replays loads on them (bench/simulation.py): bursts of N at once, Poisson
arrivals of R a second, and N sessions that each speak without a pause, the next utterance when the last has been heard
("sustained"). The machine's capacity is the largest sustained N with which no utterance of any seed had an underrun.
An utterance lasts as bench/loads.py draws it, a token of its text 3.2 frames. What is not in it: the gateway, the wire,
and stages that take each other's core; `bench mesh` measures those.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from bench.loads import draw_seconds
from bench.playback import listen
from bench.report import Report, summarise
from bench.simulation import FRAME_S, House, Machine
from services.tts_lm.scheduler import Policy

FRAMES_PER_TOKEN = 3.2


def length(draw: random.Random) -> tuple[int, int]:
    """Frames and text tokens of an utterance."""
    frames = round(draw_seconds(draw) / FRAME_S)
    return frames, max(1, round(frames / FRAMES_PER_TOKEN))


class Scene:
    """One load on one machine with one seed."""

    def __init__(self, machine: Machine, seed: int, arguments: argparse.Namespace) -> None:
        policy = Policy(lead_ceiling_s=arguments.lead_ceiling, max_batch=arguments.max_batch)
        self.house = House(machine, slot_count=arguments.slots, policy=policy, seed=seed, voices=arguments.voices)
        self._draw = random.Random(seed)
        self._rate = arguments.text_rate

    def speak(self, at_s: float, after: Callable[[float], None] | None = None) -> None:
        frames, tokens = length(self._draw)
        self.house.say(at_s, frames, tokens, voice=self._draw.randrange(1000), tokens_per_s=self._rate, after=after)

    def burst(self, size: float) -> None:
        for _ in range(int(size)):
            self.speak(0.0)

    def poisson(self, rate: float, seconds: float) -> None:
        at_s = 0.0
        while (at_s := at_s + self._draw.expovariate(rate)) < seconds:
            self.speak(at_s)

    def sustained(self, sessions: float, seconds: float) -> None:
        """They begin within the first two seconds, as people do, not all at one moment."""

        def again(now_s: float) -> None:
            if now_s < seconds:
                self.speak(now_s, again)

        for _ in range(int(sessions)):
            self.speak(self._draw.uniform(0, 2), again)


def run(machine: Machine, load: str, size: float, arguments: argparse.Namespace) -> list[Scene]:
    """The load once for each seed, played through."""
    scenes = []
    for seed in range(arguments.seeds):
        scene = Scene(machine, seed, arguments)
        if load == "burst":
            scene.burst(size)
        elif load == "poisson":
            scene.poisson(size, arguments.seconds)
        else:
            scene.sustained(size, arguments.seconds)
        scene.house.run()
        scenes.append(scene)
    return scenes


def tell(report: Report, scenes: Sequence[Scene], prebuffer_s: float, **where: float | str) -> None:
    """The figures of one load, over all seeds."""
    speeches = [speech for scene in scenes for speech in scene.house.speeches]
    heard = [(speech, listen(speech.sound, prebuffer_s)[0]) for speech in speeches if speech.sound]
    report.add("first_frame_s", [speech.frames[0][0] - speech.asked_s for speech, _ in heard], **where)
    report.add("first_sound_s", [each.first_byte_s - speech.asked_s for speech, each in heard], **where)
    report.add("rtf", [(each.last_byte_s - speech.asked_s) / each.audio_s for speech, each in heard], **where)
    report.add("missing_s", [each.missing_s for _, each in heard], **where)
    steps = [step for scene in scenes for step in scene.house.runner.steps]
    report.add("step_s", [took_s for took_s, _ in steps], **where)
    report.add("batch", [rows for _, rows in steps], **where)
    report.value("host_s_per_step", sum(scene.house.host_s for scene in scenes) / len(steps), **where)
    report.value("answers", len(speeches), **where)
    report.value("refused", sum(scene.house.refused_count for scene in scenes), **where)
    report.value("underruns", sum(each.underruns for _, each in heard), **where)
    report.value("prefix_hits", sum(speech.hit for speech in speeches), **where)


def fits(machine: Machine, sessions: int, arguments: argparse.Namespace) -> bool:
    """Whether nobody's sound stopped and nobody was refused."""
    scenes = run(machine, "sustained", sessions, arguments)
    speeches = [speech for scene in scenes for speech in scene.house.speeches]
    prebuffer_s = arguments.prebuffer_ms / 1000
    return all(s.sound and listen(s.sound, prebuffer_s)[0].underruns == 0 for s in speeches)


def capacity(machine: Machine, arguments: argparse.Namespace) -> int:
    """The most sessions that speak at once without a pause; 0 when one is too many."""
    low, high = 0, 1
    while high <= arguments.slots and fits(machine, high, arguments):
        low, high = high, high * 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if middle <= arguments.slots and fits(machine, middle, arguments) else (low, middle)
    return low


def main(argv: Sequence[str] | None = None) -> int:
    """Replay, print the table, write the report."""
    arguments = _arguments(argv)
    measured = json.loads(arguments.steps.read_text(encoding="utf-8"))
    machine = Machine.read(measured, cpu_time=arguments.cpu_time)
    configuration = {key: value for key, value in vars(arguments).items() if key not in ("json", "steps")}
    source = {key: measured[key] for key in ("name", "time", "commit", "machine", "configuration")}
    report = Report("simulate", configuration | {"steps": source})
    loads = {"burst": arguments.bursts, "poisson": arguments.rates, "sustained": arguments.sessions}
    for load, sizes in loads.items():
        for size in sizes:
            tell(report, run(machine, load, size, arguments), arguments.prebuffer_ms / 1000, load=load, size=size)
    if arguments.capacity:
        most = capacity(machine, arguments)
        report.value("capacity_sessions", most)
        if most:
            scenes = run(machine, "sustained", most, arguments)
            first_s = [s.sound[0][0] - s.asked_s for scene in scenes for s in scene.house.speeches]
            report.value("first_sound_p95_at_capacity_s", summarise(first_s)["p95"])
    if arguments.json:
        print(json.dumps(report.document()))
    else:
        print(report.table())
        print(report.write())
    return 0


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="voicemesh bench simulate", description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("steps", type=Path, help="report of `bench steps` (or `bench tts_lm`: talker alone)")
    parser.add_argument("--cpu-time", action="store_true", help="steps as if nobody else wanted the cores")
    parser.add_argument("--bursts", type=_numbers, default=[1, 3, 6, 8, 32, 128, 256], help="answers at once")
    parser.add_argument("--rates", type=_numbers, default=[1, 10, 20, 30], help="arrivals a second")
    parser.add_argument("--sessions", type=_numbers, default=[1, 8], help="that speak without a pause")
    parser.add_argument("--capacity", action="store_true", help="search how many fit")
    parser.add_argument("--seconds", type=float, default=60.0, help="of each rate and of sustained speech")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--slots", type=int, default=256)
    parser.add_argument("--voices", type=int, default=8, help="drawn for each utterance; each has a prefix of its own")
    parser.add_argument("--text-rate", type=float, default=0.0, help="tokens a second; 0: all text at once")
    parser.add_argument("--prebuffer-ms", type=float, default=100.0, help="sound that the player waits for")
    parser.add_argument("--lead-ceiling", type=float, default=Policy.lead_ceiling_s, help="seconds")
    parser.add_argument("--max-batch", type=int, help="sequences in a step (absent: all)")
    parser.add_argument("--json", action="store_true", help="print the report instead of a table, and write no file")
    return parser.parse_args(argv)


def _numbers(text: str) -> list[float]:
    return [float(part) for part in text.split(",") if part]


if __name__ == "__main__":
    sys.exit(main())
