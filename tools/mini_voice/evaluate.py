"""How much of what mini says a recogniser understands, beside the synthesiser itself and beside the codec alone.

(a) the synthesiser; (b) its speech as codes, decoded again; (c) the text spoken by the talker, decoded. The recogniser
chooses among the very sentences that are asked for, none of which was in training.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from tools.mini_voice import features, speak
from tools.mini_voice.codebooks import Codebooks
from tools.mini_voice.distance import mel_cepstral_distance
from tools.mini_voice.recognise import Identifier
from tools.mini_voice.speech_data import padded
from tools.mini_voice.synthesiser import SAMPLE_RATE_HZ, synthesiser
from tools.mini_voice.text import evaluation_sentences
from tools.mini_voice.voices import VOICES


@dataclass(frozen=True)
class Score:
    """Of `count` sentences; `frame_ratio` is the talker's length over the synthesiser's, distances are to it."""

    voice: str
    layout: str
    count: int
    synthesiser: int
    codec: int
    codec_distance_db: float
    talker: int | None = None
    ended: int | None = None
    frame_ratio: float | None = None
    talker_distance_db: float | None = None

    def __str__(self) -> str:
        line = f"{self.voice} {self.layout}: synthesiser {self.synthesiser}, codec {self.codec}"
        line += f" ({self.codec_distance_db:.2f} dB)"
        if self.talker is not None:
            line += f", talker {self.talker} ({self.talker_distance_db:.2f} dB, ended {self.ended}"
            line += f", length {self.frame_ratio:.2f})"
        return f"{line} of {self.count}"


def evaluate(directory: Path, books: Codebooks, *, count: int, layouts: Sequence[str], out: Path) -> list[Score]:
    """Scores of every voice in `layouts` (none: the codec alone); the first sounds go to `out` as WAV and PNG."""
    sentences = evaluation_sentences(count)
    identifier = Identifier(sentences)
    out.mkdir(parents=True, exist_ok=True)
    scores = []
    for voice in VOICES:
        spoken = [padded(synthesiser().speak(sentence, voice)) for sentence in sentences]
        codes = [_analysed(samples, books) for samples in spoken]
        decoded = speak.decode(directory, codes)
        plain, through = _right(identifier, spoken), _right(identifier, decoded)
        base = Score(voice.name, "codec alone", count, plain, through, _distance(spoken, decoded))
        _keep(out / f"{voice.name}-synthesiser", spoken[0])
        _keep(out / f"{voice.name}-codec", decoded[0])
        if not layouts:
            scores.append(base)
        for layout in layouts:
            said = speak.speak(directory, sentences, voice.name, layout=layout)
            sounds = speak.decode(directory, [one.codes for one in said])
            for index in range(min(3, count)):
                _keep(out / f"{voice.name}-{layout}-{index}", sounds[index])
            scores.append(
                replace(
                    base,
                    layout=layout,
                    talker=_right(identifier, sounds),
                    ended=sum(one.ended for one in said),
                    frame_ratio=sum(len(one.codes) for one in said) / sum(map(len, codes)),
                    talker_distance_db=_distance(spoken, sounds),
                )
            )
    return scores


def _analysed(samples: features.Array, books: Codebooks) -> speak.Codes:
    mel, pitch = torch.from_numpy(features.log_mel(samples)), torch.from_numpy(features.pitch(samples))
    return [tuple(frame) for frame in books.encode(mel, pitch).tolist()]


def _distance(spoken: Sequence[features.Array], sounds: Sequence[features.Array]) -> float:
    """Mean over the sentences of which any sound was made; decoded ones are as long as the frames they came from."""
    pairs = [(a, b) for a, b in zip(spoken, sounds, strict=True) if len(b)]
    return sum(mel_cepstral_distance(a, b) for a, b in pairs) / max(1, len(pairs))


def _right(identifier: Identifier, sounds: Sequence[features.Array]) -> int:
    return sum(identifier.identify(sound, SAMPLE_RATE_HZ) == i for i, sound in enumerate(sounds))


def _keep(path: Path, samples: features.Array) -> None:
    import soundfile

    soundfile.write(path.with_suffix(".wav"), samples, SAMPLE_RATE_HZ)
    spectrogram(path.with_suffix(".png"), samples)


def spectrogram(path: Path, samples: features.Array) -> None:
    """A grey picture: 10 ms a column, 0 to 12 kHz upwards, 60 dB deep."""
    whole = features.frames_of(samples).ravel()
    windows = np.lib.stride_tricks.sliding_window_view(np.pad(whole, (256, 256)), 512)[::240]
    level = np.log(np.abs(np.fft.rfft(windows * np.hanning(512), 512)) + 1e-4)
    floor = level.max() - 60 / 20 * math.log(10)
    grey = (255 * np.clip((level - floor) / (level.max() - floor), 0, 1)).astype(np.uint8)
    _write_png(path, np.flipud(255 - grey.T))


def _write_png(path: Path, grey: np.typing.NDArray[np.uint8]) -> None:
    import struct
    import zlib

    height, width = grey.shape
    rows = b"".join(b"\0" + row.tobytes() for row in grey)

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    )
