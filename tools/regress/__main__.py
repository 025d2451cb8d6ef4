"""`make regress`: the mini voice, or any checkpoint, streamed against whole-text; a page, a table, and an exit status.

Exit 1 when streaming is clearly worse than the whole text (more than 3 in a hundred fewer recognised, 2 words in a
hundred more skipped or repeated, a text that does not end), or the last minute of ten than the first.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path

import numpy as np
import soundfile

from services.gateway.sentences import utterances
from services.tts_lm.model.repertoire import load_repertoire
from tools.mini_voice import speak
from tools.mini_voice.recognise import Identifier
from tools.regress import texts
from tools.regress.measure import Samples, measure
from tools.regress.page import LAYOUTS, Take, page
from tools.regress.words import faults

_FRAME_SAMPLES = 1920


def main() -> int:
    arguments = _parser().parse_args()
    out: Path = arguments.out
    out.mkdir(parents=True, exist_ok=True)
    wanted = [*texts.SHORT, *texts.LONG][:: arguments.every]
    takes = [take for layout in LAYOUTS for take in _takes(arguments.model, arguments.voice, wanted, layout, out)]
    lines = [summary(takes, layout) for layout in LAYOUTS]
    long = [_long_text(arguments.model, arguments.voice, seed, out) for seed in (1, 2)] if arguments.long else []
    lines += [str(text) for text in long]
    (out / "index.html").write_text(page(f"{arguments.model} {arguments.voice}", lines, takes), encoding="utf-8")
    (out / "takes.json").write_text(json.dumps([asdict(take) for take in takes], indent=1), encoding="utf-8")
    print("\n".join([*lines, f"listen at {out / 'index.html'}"]))
    return 0 if no_worse(takes) and all(text.holds for text in long) else 1


def no_worse(takes: Sequence[Take]) -> bool:
    """Whether streaming keeps up with the whole text."""
    streamed, whole = ([take for take in takes if take.layout == layout] for layout in LAYOUTS)
    allowed = 0.03 * len(whole)
    understood = sum(map(_recognised, streamed)) >= sum(map(_recognised, whole)) - allowed
    return understood and _faults(streamed) <= _faults(whole) + 0.02 and all(take.ended for take in streamed)


def summary(takes: Sequence[Take], layout: str) -> str:
    """One line of figures."""
    mine = [take for take in takes if take.layout == layout]
    asked = [take for take in mine if take.recognised is not None]
    level = sum(take.sound.level_db for take in mine) / len(mine)
    pause = max(take.sound.longest_pause_s for take in mine)
    joins = sum(take.sound.joins for take in mine) / len(mine)
    return (
        f"{layout}: recognised {sum(map(_recognised, asked))} of {len(asked)}, words skipped or repeated "
        f"{100 * _faults(mine):.1f} in a hundred, ended {sum(take.ended for take in mine)} of {len(mine)}, "
        f"level {level:.1f} dB, longest pause {pause:.2f} s, joins {joins:.2f}"
    )


def _recognised(take: Take) -> bool:
    return bool(take.recognised)


def _faults(takes: Sequence[Take]) -> float:
    walks = [take.walk for take in takes if take.walk is not None]
    return sum(walk.skipped + walk.repeated for walk in walks) / max(1, sum(walk.total for walk in walks))


def _takes(model: Path, voice: str, wanted: Sequence[str], layout: str, out: Path) -> list[Take]:
    said = speak.speak(model, wanted, voice, layout=layout)
    sounds = speak.decode(model, [one.codes for one in said])
    known = [text for text in wanted if not any(character.isdigit() for character in text)]
    identifier = Identifier(known)
    takes = []
    for index, (text, one, samples) in enumerate(zip(wanted, said, sounds, strict=True)):
        file = f"{index:03}-{layout}.wav"
        soundfile.write(out / file, samples, speak.SAMPLE_RATE_HZ)
        right = known.index(text) == identifier.identify(samples, speak.SAMPLE_RATE_HZ) if text in known else None
        sound = measure(samples, speak.SAMPLE_RATE_HZ, _FRAME_SAMPLES)
        words = faults(text, voice, samples, speak.SAMPLE_RATE_HZ)
        takes.append(Take(text, layout, file, sound, words, right, one.ended))
    return takes


@dataclass(frozen=True)
class LongText:
    """Ten minutes: how many of its utterances ended by themselves; share of words wrong and level at both ends."""

    seed: int
    ended: bool
    wrong: tuple[float | None, float | None]
    level_db: tuple[float, float]

    @property
    def holds(self) -> bool:
        """Whether the last minute is as good as the first: 3 words in a hundred and 2 dB are chance."""
        first, last = self.wrong
        words = first is None or last is None or last <= first + 0.03
        return self.ended and words and abs(self.level_db[1] - self.level_db[0]) < 2

    def __str__(self) -> str:
        first, last = (
            f"{'words unchecked' if wrong is None else f'{100 * wrong:.1f} words in a hundred skipped or repeated'} "
            f"at {level:.1f} dB"
            for wrong, level in zip(self.wrong, self.level_db, strict=True)
        )
        return f"ten minutes {self.seed}: first {first}, last {last}, {'ended' if self.ended else 'did not end'}"


def _long_text(model: Path, voice: str, seed: int, out: Path) -> LongText:
    """Cut into utterances as the gateway cuts it; a minute is decoded as one."""
    minutes, repertoire = texts.minutes(texts.ten_minutes(seed)), load_repertoire(model)
    parts = [utterances(minute, 0 if repertoire is None else repertoire.steady_characters) for minute in minutes]
    said = speak.speak(model, list(chain.from_iterable(parts)), voice)
    rest = iter(said)
    sounds = speak.decode(model, [list(chain.from_iterable(next(rest).codes for _ in part)) for part in parts])
    soundfile.write(out / f"long-{seed}.wav", np.concatenate(sounds), speak.SAMPLE_RATE_HZ)
    ends = [(minutes[place], sounds[place]) for place in (0, -1)]
    levels = [measure(samples, speak.SAMPLE_RATE_HZ, _FRAME_SAMPLES).level_db for _, samples in ends]
    wrong = [_wrong(text, voice, samples) for text, samples in ends]
    return LongText(seed, all(one.ended for one in said), (wrong[0], wrong[1]), (levels[0], levels[1]))


def _wrong(text: str, voice: str, samples: Samples) -> float | None:
    """Share of the words of a minute; None of a voice that nothing here can check."""
    found = faults(text, voice, samples, speak.SAMPLE_RATE_HZ)
    return (found.skipped + found.repeated) / found.total if found else None


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="tools.regress", description=__doc__)
    parser.add_argument("--model", type=Path, default=Path("voices/mini"))
    parser.add_argument("--voice", default="mina")
    parser.add_argument("--out", type=Path, default=Path("build/regress"))
    parser.add_argument("--every", type=int, default=1, help="only every n-th sentence")
    parser.add_argument("--long", action=argparse.BooleanOptionalAction, default=True, help="the two ten-minute texts")
    return parser


if __name__ == "__main__":
    sys.exit(main())
