"""Does every sentence end by itself? `python -m tools.mini_voice.ends --model DIR`: no runaway, no early end.

A thousand sentences that nobody chose, 2 to 40 words of the lexicon in a row, asked of the talker alone: whatever the
codec does with a frame, it lasts as long. Held against how long the synthesiser takes.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Sequence
from pathlib import Path

from bench.report import Report
from tools.mini_voice.features import FRAME_SAMPLES
from tools.mini_voice.lexicon import installed_lexicon
from tools.mini_voice.speak import Said, speak
from tools.mini_voice.speech_data import padded
from tools.mini_voice.synthesiser import synthesiser
from tools.mini_voice.text import Writer
from tools.mini_voice.voices import VOICES, VoiceRecipe

SEED = 90210
LENGTHS = (0.7, 1.4)
"""Beside the synthesiser: below, something was left out; above, something went on."""
_SPARE_FRAMES = 2
"""What a very short sentence may differ by: a third of half a second is nothing."""


def sentences(count: int) -> list[str]:
    """All lengths alike; of words that predict nothing of each other, so none was ever said before."""
    writer, chance = Writer(SEED, installed_lexicon()), random.Random(SEED)
    return [writer.word_string(chance.randrange(2, 41)) for _ in range(count)]


def judge(said: Said, expected_frames: int) -> str:
    """ "fine", or what went wrong."""
    frames = len(said.codes)
    if not said.ended:
        return "runaway"
    if frames < LENGTHS[0] * expected_frames - _SPARE_FRAMES:
        return "too short"
    return "too long" if frames > LENGTHS[1] * expected_frames + _SPARE_FRAMES else "fine"


def measure(report: Report, model: Path, voice: VoiceRecipe, texts: Sequence[str]) -> list[str]:
    """Figures of one voice; returns what went wrong, a line each."""
    said = speak(model, texts, voice.name)
    expected = [len(padded(synthesiser().speak(text, voice))) // FRAME_SAMPLES for text in texts]
    verdicts = [judge(one, frames) for one, frames in zip(said, expected, strict=True)]
    report.value("sentences", len(texts), voice=voice.name)
    for verdict in ("runaway", "too short", "too long"):
        report.value(verdict.replace(" ", "_"), verdicts.count(verdict), voice=voice.name)
    ratios = [len(one.codes) / frames for one, frames in zip(said, expected, strict=True)]
    report.add("length_ratio", ratios, voice=voice.name)
    rows = zip(verdicts, ratios, texts, strict=True)
    return [f"{voice.name}: {verdict}, {ratio:.2f}: {text}" for verdict, ratio, text in rows if verdict != "fine"]


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="tools.mini_voice.ends", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", type=Path, default=Path("voices/mini"))
    parser.add_argument("--count", type=int, default=1000)
    arguments = parser.parse_args()
    report = Report("mini_ends", {"model": str(arguments.model), "seed": SEED, "lengths": LENGTHS})
    texts = sentences(arguments.count)
    for index, voice in enumerate(VOICES):
        print("\n".join(measure(report, arguments.model, voice, texts[index :: len(VOICES)])), flush=True)
    print(report.write())


if __name__ == "__main__":
    main()
