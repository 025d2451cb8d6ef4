"""Stage 2's result: what the talker learns from, compact enough to carry to another machine: about 0.7 MB an hour.

Texts, codes, and what is being said in each frame; no sound. One compressed file.
"""

from __future__ import annotations

import json
import lzma
from dataclasses import dataclass
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


def encode(paths: list[Path], books: Codebooks) -> Corpus:
    """All shards as one corpus."""
    shards = [read_shard(path) for path in paths]
    names = sorted({name for shard in shards for row in shard.phones for name in row})
    ids = {name: i for i, name in enumerate(names)}
    starts = np.cumsum([0, *(len(shard.chars) for shard in shards)])
    offsets = [shard.offsets[:-1] + start for shard, start in zip(shards, starts, strict=False)]
    return Corpus(
        texts=[text for shard in shards for text in shard.texts],
        phone_names=names,
        voices=np.concatenate([shard.voices for shard in shards]).astype(np.uint8),
        offsets=np.concatenate([*offsets, starts[-1:]]).astype(np.int64),
        codes=np.concatenate([shard_codes(shard, books) for shard in shards]).astype(np.uint16),
        chars=np.concatenate([shard.chars for shard in shards]).astype(np.uint16),
        phones=np.array([[ids[a], ids[b]] for shard in shards for a, b in shard.phones], np.uint8),
    )


def shard_codes(shard: Shard, books: Codebooks) -> npt.NDArray[np.int64]:
    """[F, used books] of a shard, utterance by utterance, since the pitch is bridged within each."""
    mel, pitch = torch.from_numpy(shard.mel).float(), torch.from_numpy(shard.pitch).float()
    bounds = zip(shard.offsets[:-1].tolist(), shard.offsets[1:].tolist(), strict=True)
    codes = [books.encode(mel[a:b], pitch[a:b]) for a, b in bounds]
    return torch.cat(codes)[:, :USED_CODEBOOKS].numpy()
