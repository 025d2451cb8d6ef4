"""Stage 2's result: what the talker learns from, compact enough to carry to another machine: about 0.7 MB an hour.

Texts, codes, and what is being said in each frame; no sound. One compressed file.
"""

from __future__ import annotations

import json
import lzma
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from tools.mini_voice.codebooks import Codebooks
from tools.mini_voice.dimensions import USED_CODEBOOKS
from tools.mini_voice.speech_data import Shard, read_shard

_DTYPES = {"voices": np.uint8, "offsets": np.int64, "codes": np.uint16, "chars": np.uint16, "phones": np.uint8}


@dataclass(frozen=True)
class Corpus:
    """Utterance u owns frames offsets[u] to offsets[u + 1]; `codes` [F, used books], `chars` [F], `phones` [F, 2]."""

    texts: list[str]
    phone_names: list[str]
    voices: npt.NDArray[np.uint8]
    offsets: npt.NDArray[np.int64]
    codes: npt.NDArray[np.uint16]
    chars: npt.NDArray[np.uint16]
    phones: npt.NDArray[np.uint8]

    def save(self, path: Path) -> None:
        head = {"texts": self.texts, "phone_names": self.phone_names, "frames": len(self.codes)}
        parts = [json.dumps(head).encode(), b"\n"]
        for name, dtype in _DTYPES.items():
            array = np.ascontiguousarray(getattr(self, name), dtype)
            parts.append(array.tobytes())
        draft = path.with_suffix(".draft")
        draft.write_bytes(lzma.compress(b"".join(parts), preset=1))
        draft.rename(path)

    @classmethod
    def load(cls, path: Path) -> Corpus:
        data = lzma.decompress(path.read_bytes())
        end = data.index(b"\n")
        head = json.loads(data[:end])
        frames, place = head["frames"], end + 1
        utterances = len(head["texts"])
        shapes = {
            "voices": (utterances,),
            "offsets": (utterances + 1,),
            "codes": (frames, USED_CODEBOOKS),
            "chars": (frames,),
            "phones": (frames, 2),
        }
        arrays = {}
        for name, dtype in _DTYPES.items():
            count = int(np.prod(shapes[name]))
            arrays[name] = np.frombuffer(data, dtype, count, place).reshape(shapes[name])
            place += arrays[name].nbytes
        return cls(head["texts"], head["phone_names"], **arrays)


def encode(paths: Sequence[Path], books: Path, processes: int) -> Corpus:
    """All shards as one corpus, with the codebooks stored at `books`."""
    with ProcessPoolExecutor(processes, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        parts = list(pool.map(partial(_encode_one, books=books), paths))
    names = sorted({name for part in parts for name in part.phone_names})
    starts = np.cumsum([0, *(len(part.codes) for part in parts)])
    offsets = [part.offsets[:-1] + start for part, start in zip(parts, starts, strict=False)]
    renumbered = [np.array([names.index(name) for name in part.phone_names], np.uint8)[part.phones] for part in parts]
    return Corpus(
        texts=[text for part in parts for text in part.texts],
        phone_names=names,
        voices=np.concatenate([part.voices for part in parts]),
        offsets=np.concatenate([*offsets, starts[-1:]]),
        codes=np.concatenate([part.codes for part in parts]),
        chars=np.concatenate([part.chars for part in parts]),
        phones=np.concatenate(renumbered),
    )


def _encode_one(path: Path, books: Path) -> Corpus:
    shard = read_shard(path)
    return Corpus(
        texts=shard.texts,
        phone_names=shard.phone_names,
        voices=shard.voices.astype(np.uint8),
        offsets=shard.offsets,
        codes=shard_codes(shard, Codebooks.load(books)).astype(np.uint16),
        chars=shard.chars.astype(np.uint16),
        phones=shard.phones,
    )


def shard_codes(shard: Shard, books: Codebooks) -> npt.NDArray[np.int64]:
    """[F, used books] of a shard, utterance by utterance, since the pitch is bridged within each."""
    mel, pitch = torch.from_numpy(shard.mel).float(), torch.from_numpy(shard.pitch).float()
    bounds = zip(shard.offsets[:-1].tolist(), shard.offsets[1:].tolist(), strict=True)
    codes = [books.encode(mel[a:b], pitch[a:b]) for a, b in bounds]
    return torch.cat(codes)[:, :USED_CODEBOOKS].numpy()
