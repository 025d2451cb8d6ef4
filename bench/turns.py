"""What hearing and deciding cost, and how late they are: silero windows, the machine's steps, its rules on speech.

Delays are of espeak-ng sentences with pauses of known length between them, on faint noise, in sound time: from the
first sample above −40 dB of the sentence's peak to the end of the window in which a rule holds, and from the last such
sample to the window in which the silence is long enough. Two voices, three speeds, English and Chinese. What network,
event loop and turn model add is not in them. False starts are counted in sounds without voice. Costs are of one call,
alone in this process, with OMP_NUM_THREADS as it is set.

`heard_error_words` is how many words too many (or, below 0, too few) `heard.py` believes were heard when a word has
just been said. When that is, is how long the synthesiser takes for the text up to there alone: a little late, as it
slows down before an end. `cut in` is an answer that is still being made, its voice's pace known from the answers before
(none before the first); `made` one that is complete.
"""

from __future__ import annotations

import argparse
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray

from bench.report import Report
from services.gateway.hearing.listener import Listener
from services.gateway.hearing.smart_turn import log_mel
from services.gateway.turns.events import AudioReady, Connected, PlayoutProgress, VoiceWindow
from services.gateway.turns.heard import HeardLedger, SpeakingPace, word_end
from services.gateway.turns.machine import TurnMachine
from services.gateway.turns.settings import TurnSettings
from services.gateway.turns.states import State

RATE_HZ = 16_000
WINDOW_S = 0.032
SENTENCES = {
    "en-us": ("Hello there.", "What is the weather like today?", "Please tell me a long story.", "Seven plus five."),
    "cmn": ("你好。", "今天天气怎么样？", "请给我讲一个故事。", "七加五等于多少？"),
}
ANSWERS = {
    "en-us": (
        "Hello there, this is a rather long answer. It goes on for a while, as answers do.",
        "The train leaves at 9:45 from platform 12, and arrives at about a quarter past three in the afternoon.",
        "There was a small fox. He lived in a wood near the sea! Every morning, he went down to watch the boats.",
    ),
    "cmn": (
        "你好，今天天气很好。我们可以去公园散步，也可以在家里看书。",
        "从前有一只小狐狸，住在海边的树林里。每天早上，它都去看船。",
    ),
}
VOICES = ("", "+f3")
SPEEDS = (130, 170, 220)
ONSET_RULES = {"1 window": 1, "2 windows": 2, "3 windows": 3, "commit 0.24 s": 8}
END_RULES = {"soft end 0.128 s": 4, "complete 0.16 s": 5, "unsure 0.4 s": 13}
PAUSE_S = 1.6

Sound = NDArray[np.int16]


@dataclass(frozen=True)
class Spoken:
    """Sentences with silence between, and where each begins and ends."""

    samples: Sound
    marks: tuple[tuple[int, int], ...]


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and write a report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=5_000, help="calls of each kind that are timed")
    arguments = parser.parse_args(argv)
    report = Report("turns", {"calls": arguments.calls, "voices": VOICES, "speeds": SPEEDS, "pause_s": PAUSE_S})
    spoken = list(speech())
    delays(report, spoken)
    false_starts(report)
    heard_words(report)
    costs(report, spoken[0].samples, arguments.calls)
    print(report.table())
    print(report.write())
    return 0


def speech() -> Iterator[Spoken]:
    """One piece per language, voice and speed."""
    noise = np.random.default_rng(0)
    for language, sentences in SENTENCES.items():
        for voice in VOICES:
            for speed in SPEEDS:
                parts, marks, at = [], [], 0
                for sentence in sentences:
                    sound = sentence_sound(language + voice, speed, sentence)
                    at += round(PAUSE_S * RATE_HZ)
                    marks.append((at, at + sound.size))
                    at += sound.size
                    parts += [np.zeros(round(PAUSE_S * RATE_HZ), np.float32), sound]
                parts.append(np.zeros(round(PAUSE_S * RATE_HZ), np.float32))
                whole = np.concatenate(parts)
                whole += noise.standard_normal(whole.size).astype(np.float32) * np.float32(1e-3)
                yield Spoken((whole * 32767).clip(-32768, 32767).astype(np.int16), tuple(marks))


def sentence_sound(voice: str, speed: int, text: str) -> NDArray[np.float32]:
    """A sentence at half scale, cut to what is above −40 dB of its peak."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "sentence.wav"
        subprocess.run(["espeak-ng", "-v", voice, "-s", str(speed), "-w", path, text], check=True, timeout=30)
        sound, rate_hz = soundfile.read(path, dtype="float32")
    sound = soxr.resample(sound, rate_hz, RATE_HZ).astype(np.float32)
    loud = np.flatnonzero(np.abs(sound) > np.abs(sound).max() / 100)
    sound = sound[loud[0] : loud[-1] + 1]
    return np.asarray(sound * (0.5 / np.abs(sound).max()), np.float32)


def delays(report: Report, spoken: list[Spoken]) -> None:
    """How long after the truth each rule holds."""
    onsets: dict[str, list[float]] = {rule: [] for rule in ONSET_RULES}
    ends: dict[str, list[float]] = {rule: [] for rule in END_RULES}
    missed: dict[str, int] = dict.fromkeys(ONSET_RULES, 0)
    for piece in spoken:
        windows = Listener().hear(piece.samples)
        for begin, end in piece.marks:
            near = [window for window in windows if begin - 3200 < window.end_sample < end + PAUSE_S * RATE_HZ - 3200]
            for rule, count in ONSET_RULES.items():
                at = first_run(near, True, count)
                if at is None:
                    missed[rule] += 1
                else:
                    onsets[rule].append((at - begin) / RATE_HZ)
            after = last_voice(near, end)
            for rule, count in END_RULES.items():
                at = first_run([window for window in near if window.end_sample > after], False, count)
                if at is not None:
                    ends[rule].append((at - end) / RATE_HZ)
    for rule, values in onsets.items():
        report.add("onset_delay_s", values, rule=rule)
        report.value("onsets_missed", missed[rule], rule=rule)
    for rule, values in ends.items():
        report.add("end_delay_s", values, rule=rule)


def first_run(windows: list[VoiceWindow], voiced: bool, count: int) -> int | None:
    """Where so many windows alike have been seen, gaps shorter than a lapse (5 windows) allowed for voice."""
    run = gap = 0
    for window in windows:
        if window.voiced is voiced:
            run, gap = run + 1, 0
        else:
            gap += 1
            run = run if voiced and gap < 5 else 0
        if run == count:
            return window.end_sample
    return None


def last_voice(windows: list[VoiceWindow], end: int) -> int:
    """The end of the last voiced window that began before the sentence was over; else its end."""
    return max(
        (window.end_sample for window in windows if window.voiced and window.end_sample - 512 <= end), default=end
    )


def false_starts(report: Report) -> None:
    """Candidates and starts where nobody speaks."""
    for name, sound in quiet_sounds().items():
        machine, listener, starts, candidates, before = TurnMachine(TurnSettings(), 0.0), Listener(), 0, 0, False
        machine.step(Connected(), 0.0)
        for window in listener.hear(sound):
            candidates += window.voiced and not before
            before = window.voiced
            was = machine.state
            machine.step(window, window.end_sample / RATE_HZ)
            starts += machine.state is State.USER_SPEAKING and was is not State.USER_SPEAKING
        report.value("false_candidates", candidates, sound=name, seconds=round(sound.size / RATE_HZ))
        report.value("false_starts", starts, sound=name, seconds=round(sound.size / RATE_HZ))


def quiet_sounds(seconds: int = 60) -> dict[str, Sound]:
    """Sounds without voice."""
    chance, count = np.random.default_rng(1), seconds * RATE_HZ
    white = chance.standard_normal(count)
    brown = np.cumsum(white)
    brown -= np.convolve(brown, np.ones(4000) / 4000, "same")
    clicks = np.zeros(count)
    clicks[chance.integers(0, count, seconds * 2)] = 1.0
    clicks = np.convolve(clicks, np.exp(-np.arange(400) / 60) * chance.standard_normal(400), "same")
    hum = sum(np.sin(2 * np.pi * 50 * multiple * np.arange(count) / RATE_HZ) / multiple for multiple in (1, 2, 3, 5))
    shapes = {"silence": np.zeros(count), "white": white, "brown": brown, "clicks": clicks, "hum": np.asarray(hum)}
    return {name: (shape / max(np.abs(shape).max(), 1) * 8000).astype(np.int16) for name, shape in shapes.items()}


def heard_words(report: Report) -> None:
    """How far what is believed to have been heard is from what was."""
    for language, answers in ANSWERS.items():
        for made in (False, True):
            errors: list[float] = []
            for speed in SPEEDS:
                pace = SpeakingPace()
                errors += [error for text in answers for error in word_errors(language, speed, text, made, pace)]
            report.add("heard_error_words", errors, language=language, answer="made" if made else "cut in")


def word_errors(language: str, speed: int, text: str, made: bool, pace: SpeakingPace) -> list[float]:
    """Of one answer, at each of its words; its pace is learned at its end."""
    ends = [at for at in range(1, len(text)) if word_end(text, at) == at and text[at - 1].isalnum()]
    ledger = HeardLedger(pace)
    ledger.add_text(text)
    ledger.add_audio(0, at_24_khz(sentence_sound(language, speed, text)), len(text))
    if made:
        ledger.finish()
    errors = []
    for count, end in enumerate(ends, 1):
        heard = ledger.heard(at_24_khz(sentence_sound(language, speed, text[:end])), 0.0)
        errors.append(float(sum(other <= heard.character_count for other in ends) - count))
    ledger.finish()
    return errors


def at_24_khz(sound: NDArray[np.float32]) -> int:
    """How many samples it would be."""
    return sound.size * 3 // 2


def costs(report: Report, sound: Sound, calls: int) -> None:
    """One call of each, in seconds."""
    listener, at = Listener(), 0

    def window() -> None:
        nonlocal at
        listener.hear(sound[at : at + 512])
        at = at + 512 if at + 1024 < sound.size else 0

    report.add("window_s", timed(window, calls))
    machine = speaking_machine()
    report.add("step_s", timed(machine_step(machine), calls), event="progress")
    report.add("step_s", timed(machine_window(TurnMachine(TurnSettings(), 0.0)), calls), event="window")
    ledger = HeardLedger(SpeakingPace())
    ledger.add_text("A rather long answer, of many words. " * 50)
    for frame in range(2000):
        ledger.add_audio(frame * 1920, 1920, frame)
    chance = random.Random(0)
    report.add("heard_s", timed(lambda: ledger.heard(chance.randrange(3_000_000), 0.08), calls))
    report.add("log_mel_s", timed(lambda: log_mel(sound), 20))


def timed(call: Callable[[], object], calls: int) -> list[float]:
    """Seconds of each call, after a warm-up."""
    for _ in range(calls // 10):
        call()
    taken = []
    for _ in range(calls):
        begin = time.perf_counter()
        call()
        taken.append(time.perf_counter() - begin)
    return taken


def speaking_machine() -> TurnMachine:
    """One whose agent is heard."""
    machine, sample = TurnMachine(TurnSettings(), 0.0), 0
    machine.step(Connected(), 0.0)
    for voiced in (*[True] * 20, *[False] * 20):
        sample += 512
        machine.step(VoiceWindow(sample, 512, voiced), sample / RATE_HZ)
    assert machine.wanted_epoch is not None
    machine.step(AudioReady(machine.wanted_epoch), sample / RATE_HZ)
    assert machine.state is State.SPEAKING
    return machine


def machine_step(machine: TurnMachine) -> Callable[[], object]:
    event = PlayoutProgress(machine.wanted_epoch or 0)
    return lambda: machine.step(event, 2.0)


def machine_window(machine: TurnMachine) -> Callable[[], object]:
    """A user who speaks and pauses without end."""
    machine.step(Connected(), 0.0)
    count = 0

    def window() -> None:
        nonlocal count
        count += 1
        machine.step(VoiceWindow(count * 512, 512, count % 40 < 20), count * WINDOW_S)

    return window


if __name__ == "__main__":
    sys.exit(main())
