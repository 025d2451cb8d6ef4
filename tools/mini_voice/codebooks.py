"""Features → codes and back: principal components, then k-means books, none of it learned by gradient.

Book 0 divides the envelope, in a metric that also counts what a linear map can tell of the phonemes; book 1 divides the
pitch track and voicing; the next ones divide what the envelope still lacks. The rest hold zeros: they exist because the
layout has sixteen, and cost the talker nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from tools.mini_voice.dimensions import (
    CODEBOOK_COUNT,
    CODEBOOK_SIZE,
    ENTRY_WIDTH,
    ENVELOPE_WIDTH,
    PITCH_WIDTH,
    USED_CODEBOOKS,
)

Codes = npt.NDArray[np.int64]
_RESCALE = -0.75
_PHONETIC_WEIGHT = 1.0
_PITCH_UNIT = 0.12  # natural log; about two semitones count as much as one voiced hop
_ITERATIONS = 20


@dataclass(frozen=True)
class Codebooks:
    """`entries` [16, 512, 128] in feature units, envelope first; `scale` [128] is what the decoder sees them times."""

    mean: Tensor  # [320]
    basis: Tensor  # [320, 112]
    phonetic: Tensor  # [112, P]
    pitch_centre: Tensor  # [] log Hz
    entries: Tensor
    scale: Tensor

    def envelope(self, mel: Tensor) -> Tensor:
        """[F, 8, 40] → [F, 112]."""
        return (mel.flatten(1) - self.mean) @ self.basis

    def encode(self, mel: Tensor, pitch: Tensor) -> Tensor:
        """[F, 8, 40] and [F, 8] Hz of one utterance → codes [F, 16]; the unused ones are 0."""
        codes = torch.zeros(len(mel), CODEBOOK_COUNT, dtype=torch.int64)
        rest = self.envelope(mel)
        first = self.entries[0, :, :ENVELOPE_WIDTH]
        codes[:, 0] = nearest(self._phonetic_metric(rest), self._phonetic_metric(first))
        codes[:, 1] = nearest(pitch_features(pitch, self.pitch_centre), self.entries[1, :, ENVELOPE_WIDTH:])
        rest = rest - first[codes[:, 0]]
        for book in range(2, USED_CODEBOOKS):
            entries = self.entries[book, :, :ENVELOPE_WIDTH]
            codes[:, book] = nearest(rest, entries)
            rest = rest - entries[codes[:, book]]
        return codes

    def scaled_entries(self) -> Tensor:
        """What the decoder is trained on and what is exported."""
        return self.entries * self.scale

    def _phonetic_metric(self, envelope: Tensor) -> Tensor:
        return torch.cat([envelope, envelope @ self.phonetic], dim=1)

    def save(self, path: Path) -> None:
        np.savez(path, **{field.name: getattr(self, field.name).numpy() for field in fields(self)})

    def save_analysis(self, path: Path) -> None:
        """Without the entries, which a checkpoint holds as the decoder sees them."""
        names = [field.name for field in fields(self) if field.name != "entries"]
        np.savez(path, **{name: getattr(self, name).numpy() for name in names})

    @classmethod
    def load(cls, path: Path, scaled_entries: Tensor | None = None) -> Codebooks:
        """From what `save` wrote, or, with the entries of a checkpoint, from what `save_analysis` wrote."""
        with np.load(path) as file:
            found = {name: torch.from_numpy(file[name]) for name in file.files}
        if scaled_entries is not None:
            found["entries"] = scaled_entries / found["scale"]
        return cls(**found)


def fit(mel: Tensor, pitch: list[Tensor], phones: Tensor, seed: int = 0) -> Codebooks:
    """`mel` [F, 8, 40], `pitch` one [F_u, 8] per utterance, `phones` [F, P] how much of each frame is each phoneme."""
    generator = torch.Generator().manual_seed(seed)
    flat = mel.flatten(1)
    mean = flat.mean(0)
    _, vectors = torch.linalg.eigh(torch.cov((flat - mean).T))
    basis = vectors.flip(1)[:, :ENVELOPE_WIDTH].contiguous()
    envelope = (flat - mean) @ basis
    phonetic = _phonetic_map(envelope, phones)
    centre = torch.cat([p[p > 0] for p in pitch]).log().mean()
    tracks = torch.cat([pitch_features(p, centre) for p in pitch])
    entries = torch.zeros(CODEBOOK_COUNT, CODEBOOK_SIZE, ENTRY_WIDTH)
    metric = torch.cat([envelope, envelope @ phonetic], dim=1)
    books = kmeans(metric, CODEBOOK_SIZE, generator)
    entries[0, :, :ENVELOPE_WIDTH] = books[:, :ENVELOPE_WIDTH]
    rest = envelope - books[nearest(metric, books), :ENVELOPE_WIDTH]
    entries[1, :, ENVELOPE_WIDTH:] = kmeans(tracks, CODEBOOK_SIZE, generator)
    for book in range(2, USED_CODEBOOKS):
        entries[book, :, :ENVELOPE_WIDTH] = kmeans(rest, CODEBOOK_SIZE, generator)
        rest = rest - entries[book, nearest(rest, entries[book, :, :ENVELOPE_WIDTH]), :ENVELOPE_WIDTH]
    spread = torch.cat([envelope.std(0), tracks.std(0)])
    return Codebooks(mean, basis, phonetic, centre, entries, spread.clamp(min=1e-3) ** _RESCALE)


def pitch_features(pitch: Tensor, centre: Tensor) -> Tensor:
    """[F, 8] Hz → [F, 16]: the log pitch, bridged where unvoiced and smoothed, and whether there is any."""
    hz = pitch.flatten().to(torch.float32)
    voiced = hz > 0
    where = voiced.nonzero().flatten()
    if len(where) == 0:
        return torch.zeros(len(pitch), PITCH_WIDTH)
    log = hz[where].log() - centre
    bridged = torch.from_numpy(np.interp(np.arange(len(hz)), where.numpy(), log.numpy())).to(torch.float32)
    padded = torch.nn.functional.pad(bridged[None, None], (3, 3), mode="replicate")[0, 0]
    smooth = padded.unfold(0, 7, 1).median(dim=1).values
    return torch.cat([smooth.view(-1, 8) / _PITCH_UNIT, voiced.view(-1, 8).to(torch.float32)], dim=1)


def nearest(points: Tensor, entries: Tensor) -> Tensor:
    """Index of the nearest entry for each point: [N, D], [K, D] → [N]."""
    half = entries.square().sum(1) / 2
    parts = torch.split(points, 65536)
    return torch.cat([(part @ entries.T - half).argmax(1) for part in parts])


def kmeans(points: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Lloyd's iteration from random points; an empty entry moves to a random point. [N, D] → [count, D]."""
    entries = points[torch.randperm(len(points), generator=generator)[:count]].clone()
    for _ in range(_ITERATIONS):
        chosen = nearest(points, entries)
        sums = torch.zeros_like(entries).index_add_(0, chosen, points)
        sizes = torch.bincount(chosen, minlength=count)
        strays = points[torch.randint(len(points), (count,), generator=generator)]
        entries = torch.where((sizes > 0)[:, None], sums / sizes.clamp(min=1)[:, None], strays)
    return entries


def _phonetic_map(envelope: Tensor, phones: Tensor) -> Tensor:
    """Ridge regression to phoneme shares, scaled so that it weighs as much as the envelope itself."""
    gram = envelope.T @ envelope
    ridge = 1e-3 * gram.diagonal().mean() * torch.eye(len(gram))
    weights = torch.linalg.solve(gram + ridge, envelope.T @ (phones - phones.mean(0)))
    told = (envelope @ weights).var(0).sum()
    scaled: Tensor = weights * (_PHONETIC_WEIGHT * envelope.var(0).sum() / told).sqrt()
    return scaled
