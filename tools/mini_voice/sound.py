"""The codec's training sound, small enough to carry: μ-law, compressed, beside the codes of the same frames."""

from __future__ import annotations

import io
import lzma
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

_MU = 255.0


@dataclass(frozen=True)
class SoundBank:
    """`samples` [F · 1920] int16, `codes` [F, used books]; utterance u, of voices[u], from frame offsets[u] to
    offsets[u + 1]."""

    samples: npt.NDArray[np.int16]
    codes: npt.NDArray[np.uint16]
    offsets: npt.NDArray[np.int64]
    voices: npt.NDArray[np.uint8]

    def save(self, path: Path) -> None:
        buffer = io.BytesIO()
        codes, offsets, voices = self.codes, self.offsets, self.voices
        np.savez(buffer, mu_law=mu_law(self.samples), codes=codes, offsets=offsets, voices=voices)
        draft = path.with_suffix(".draft")
        draft.write_bytes(lzma.compress(buffer.getvalue(), preset=1))
        draft.rename(path)

    @classmethod
    def load(cls, path: Path) -> SoundBank:
        with np.load(io.BytesIO(lzma.decompress(path.read_bytes()))) as file:
            return cls(linear(file["mu_law"]), file["codes"], file["offsets"], file["voices"])

    def first(self, frames: int) -> SoundBank:
        """Whole utterances from the start, at most `frames` frames."""
        count = int(np.searchsorted(self.offsets, frames, side="right")) - 1
        end = int(self.offsets[count])
        per_frame = len(self.samples) // len(self.codes)
        return SoundBank(
            self.samples[: end * per_frame], self.codes[:end], self.offsets[: count + 1], self.voices[:count]
        )


def mu_law(samples: npt.NDArray[np.int16]) -> npt.NDArray[np.uint8]:
    """int16 → 8 bits, about 38 dB of signal to noise at any loudness."""
    x = samples.astype(np.float32) / 32768
    curved = np.sign(x) * np.log1p(_MU * np.abs(x)) / np.log1p(_MU)
    return np.asarray(np.round((curved + 1) * 127.5), np.uint8)


def linear(codes: npt.NDArray[np.uint8]) -> npt.NDArray[np.int16]:
    """The inverse of `mu_law`."""
    curved = codes.astype(np.float32) / 127.5 - 1
    x = np.sign(curved) * np.expm1(np.abs(curved) * np.log1p(_MU)) / _MU
    return np.asarray(np.round(x * 32767), np.int16)
