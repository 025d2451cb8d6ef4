"""Stage 1: sentences spoken by the synthesiser, as shards of features on disk; every shard is made whole or not at all.

A shard depends on its number and the recipe alone, so shards can be made by any number of processes, in any order, and
more can be added later.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tools.mini_voice import features
from tools.mini_voice.lexicon import installed_lexicon
from tools.mini_voice.offline_sentences import offline_answers
from tools.mini_voice.synthesiser import Speech, synthesiser
from tools.mini_voice.text import Writer, evaluation_sentences, normal_form
from tools.mini_voice.timing import LEAD_FRAMES, TAIL_FRAMES, chars_by_frame, phones_by_frame
from tools.mini_voice.voices import VOICES

UTTERANCES_PER_SHARD = 1000
EVALUATION_COUNT = 1000
_PARAGRAPH_SHARE = 0.03


@dataclass(frozen=True)
class Shard:
    """Utterance u owns frames offsets[u] to offsets[u + 1] of every array."""

    texts: list[str]
    voices: npt.NDArray[np.int64]
    offsets: npt.NDArray[np.int64]
    mel: npt.NDArray[np.float16]  # [F, 8, 40]
    pitch: npt.NDArray[np.float16]  # [F, 8] Hz
    chars: npt.NDArray[np.int16]  # [F]
    phone_names: list[str]
    phones: npt.NDArray[np.uint8]  # [F, 2], indices of phone_names
    samples: npt.NDArray[np.int16] | None  # [F · 1920], kept in the first shards


def make_shards(directory: Path, count: int, with_samples: int, processes: int) -> list[Path]:
    """Make what is missing of shards 0 … count − 1; the first `with_samples` keep their sound. Returns all paths."""
    directory.mkdir(parents=True, exist_ok=True)
    paths = [directory / f"shard-{index:04}.npz" for index in range(count)]
    missing = [(str(path), i, i < with_samples) for i, path in enumerate(paths) if not path.exists()]
    with ProcessPoolExecutor(processes) as pool:
        for path in pool.map(_make, missing):
            print("made", path, flush=True)
    return paths


def read_shard(path: Path) -> Shard:
    """The shard at `path`."""
    with np.load(path) as file:
        words = json.loads(bytes(file["words"]))
        return Shard(
            texts=words["texts"],
            voices=file["voices"],
            offsets=file["offsets"],
            mel=file["mel"],
            pitch=file["pitch"],
            chars=file["chars"],
            phone_names=words["phones"],
            phones=file["phones"],
            samples=file.get("samples", None),
        )


def shard_texts(index: int) -> Iterator[tuple[str, int]]:
    """(text, voice) of a shard's utterances; none of the evaluation sentences is among them."""
    writer = Writer(1000 + index, _lexicon(), answers=_answers())
    chance = random.Random(index)
    for _ in range(UTTERANCES_PER_SHARD):
        text = _unheld(writer, chance)
        yield text, chance.randrange(len(VOICES))


def _unheld(writer: Writer, chance: random.Random) -> str:
    while True:
        sentences = [
            writer.sentence() for _ in range(chance.randrange(2, 7) if chance.random() < _PARAGRAPH_SHARE else 1)
        ]
        if not any(normal_form(sentence) in _held_out() for sentence in sentences):
            return " ".join(sentences)


@cache
def _lexicon() -> Sequence[tuple[str, float]]:
    return installed_lexicon()


@cache
def _answers() -> Sequence[str]:
    return offline_answers(4000)


@cache
def _held_out() -> frozenset[str]:
    return frozenset(normal_form(sentence) for sentence in evaluation_sentences(EVALUATION_COUNT))


def padded(speech: Speech) -> features.Array:
    """Whole frames: silence, the speech, silence."""
    return features.frames_of(
        np.concatenate(
            [
                np.zeros(LEAD_FRAMES * features.FRAME_SAMPLES, np.float32),
                speech.samples,
                np.zeros(TAIL_FRAMES * features.FRAME_SAMPLES, np.float32),
            ]
        )
    ).ravel()


def _make(task: tuple[str, int, bool]) -> str:
    path, index, with_samples = task
    columns: dict[str, list[Any]] = {name: [] for name in ("texts", "voices", "mel", "pitch", "chars", "phones", "pcm")}
    for text, voice in shard_texts(index):
        speech = synthesiser().speak(text, VOICES[voice])
        samples = padded(speech)
        frame_count = len(samples) // features.FRAME_SAMPLES
        columns["texts"].append(text)
        columns["voices"].append(voice)
        columns["mel"].append(features.log_mel(samples).astype(np.float16))
        columns["pitch"].append(features.pitch(samples).astype(np.float16))
        columns["chars"].append(np.array(chars_by_frame(text, speech.words, speech.phones, frame_count), np.int16))
        columns["phones"].append(phones_by_frame(speech.phones, frame_count))
        columns["pcm"].append((np.clip(samples, -1, 1) * 32767).astype(np.int16))
    _write(Path(path), columns, with_samples)
    return path


def _write(path: Path, columns: dict[str, list[Any]], with_samples: bool) -> None:
    rows = [row for utterance in columns["phones"] for row in utterance]
    names = sorted({name for row in rows for name in row})
    ids = {name: i for i, name in enumerate(names)}
    arrays: dict[str, Any] = {
        "words": np.frombuffer(json.dumps({"texts": columns["texts"], "phones": names}).encode(), np.uint8),
        "voices": np.array(columns["voices"], np.int64),
        "offsets": np.cumsum([0, *map(len, columns["chars"])]),
        "mel": np.concatenate(columns["mel"]),
        "pitch": np.concatenate(columns["pitch"]),
        "chars": np.concatenate(columns["chars"]),
        "phones": np.array([[ids[name] for name in row] for row in rows], np.uint8),
    }
    if with_samples:
        arrays["samples"] = np.concatenate(columns["pcm"])
    draft = path.with_suffix(".draft")
    with draft.open("wb") as file:
        np.savez(file, **arrays)
    draft.rename(path)
