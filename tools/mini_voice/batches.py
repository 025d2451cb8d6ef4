"""Corpus → batches of rows: which utterances, how long, in which layout, and how the past is blurred.

The past codes are damaged at random in what the talker reads, never in what it must say: a talker that can live on
the last frame alone never learns to read.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from tokenizers import Tokenizer
from torch import Tensor

from tools.mini_voice import vocabulary
from tools.mini_voice.corpus import Corpus
from tools.mini_voice.dimensions import CODEBOOK_SIZE
from tools.mini_voice.rows import NOTHING, Rows, SpecialIds, build


@dataclass(frozen=True)
class Batch:
    """All [B, T] unless it says otherwise, int16 until moved to a device; padding is NOTHING, of `text` 0."""

    text: Tensor
    codec: Tensor
    codes: Tensor  # [B, T, used books − 1]: the past frame, as it is read
    label: Tensor
    target: Tensor
    said: Tensor  # [B, T, used books]: the frame that the row predicts, NOTHING where none
    phones: Tensor  # [B, T, 2]

    def to(self, device: str) -> Batch:
        return Batch(**{name: value.to(device, non_blocking=True).long() for name, value in vars(self).items()})


@dataclass(frozen=True)
class _Spoken:
    """One thing to say: an utterance of the corpus, or several of one voice in a row."""

    tokens: list[int]
    codes: npt.NDArray[np.int64]  # [T, books]
    phones: npt.NDArray[np.int64]  # [T, 2]
    token_of_frame: npt.NDArray[np.int64]  # [T]
    voice: int


class Batcher:
    """Draws batches of about `row_budget` rows from utterances of similar length, or from chains of utterances."""

    def __init__(self, corpus: Corpus, tokenizer: Tokenizer) -> None:
        self._corpus, self._tokenizer = corpus, tokenizer
        self._random = np.random.default_rng(0)
        self.ids = special_ids(tokenizer)
        self._tokens = [vocabulary.encode(tokenizer, text) for text in corpus.texts]
        self._frames = np.diff(corpus.offsets)
        self.tokens_per_second = sum(len(t) for t, _ in self._tokens) / (len(corpus.codes) * 0.08)
        order = np.argsort(self._frames, kind="stable")
        self._order, self._sorted = order, self._frames[order]
        self._of_voice = [np.flatnonzero(corpus.voices == voice) for voice in range(int(corpus.voices.max()) + 1)]

    def draw(self, seed: int, row_budget: int, frame_limit: int, damage: float, whole_share: float) -> Batch:
        """Utterances of at most `frame_limit` frames, all about as long as one drawn at random by its frames.

        The same arguments give the same batch, whoever draws it and in whatever order.
        """
        self._random = np.random.default_rng(seed)
        last = max(1, int(np.searchsorted(self._sorted, frame_limit, side="right")))
        weights = self._sorted[:last].cumsum()
        centre = int(np.searchsorted(weights, self._random.random() * weights[-1]))
        whole = bool(self._random.random() < whole_share)
        longest = int(self._sorted[centre]) + 12 + (int(self._sorted[centre]) if whole else 0)
        count = max(1, row_budget // longest)
        spread = max(count, last // 50)
        low = max(0, min(centre - spread // 2, last - spread))
        chosen = self._random.choice(np.arange(low, min(low + spread, last)), min(count, last), replace=spread < count)
        return self._collate([self._spoken([int(self._order[i])]) for i in chosen], damage, whole)

    def draw_chains(self, seed: int, row_budget: int, frames: int, damage: float) -> Batch:
        """Streaming rows of utterances in a row, each chain of one voice and of about `frames` frames: so long do
        paragraphs become that the corpus has none."""
        self._random = np.random.default_rng((seed, 1))
        return self._collate([self._chain(frames) for _ in range(max(1, row_budget // frames))], damage, whole=False)

    def _chain(self, frames: int) -> _Spoken:
        voice = self._of_voice[int(self._random.integers(len(self._of_voice)))]
        links: list[int] = []
        while not links or sum(int(self._frames[link]) for link in links) < frames:
            links.append(int(self._random.choice(voice)))
        return self._spoken(links[:-1] or links)

    def _collate(self, spoken: list[_Spoken], damage: float, whole: bool) -> Batch:
        auto = bool(self._random.random() < 0.15)
        made = [self._rows(one, whole, auto) for one in spoken]
        length = max(len(rows) for rows in made)
        count, books = len(made), self._corpus.codes.shape[1]
        columns = {name: _filled((count, length)) for name in ("codec", "label", "target")}
        text = np.zeros((count, length), np.int64)
        codes, said, phones = (
            _filled((count, length, books - 1)),
            _filled((count, length, books)),
            _filled((count, length, 2)),
        )
        for i, (rows, one) in enumerate(zip(made, spoken, strict=True)):
            size = len(rows)
            text[i, :size], codes[i, :size] = rows.text, rows.codes
            for name, column in columns.items():
                column[i, :size] = getattr(rows, name)
            predicting = slice(size - 1 - len(one.codes), size - 1)
            said[i, predicting], phones[i, predicting] = one.codes, one.phones
        self._damage(columns["codec"], codes, damage)
        arrays = {"text": text, "codes": codes, "said": said, "phones": phones, **columns}
        return Batch(**{name: torch.from_numpy(array.astype(np.int16)) for name, array in arrays.items()})

    def _rows(self, one: _Spoken, whole: bool, auto: bool) -> Rows:
        return build(self.ids, one.tokens, one.codes, one.token_of_frame, one.voice, whole=whole, auto_language=auto)

    def _spoken(self, utterances: list[int]) -> _Spoken:
        """Utterances with a space between them: pieces of text are tokenised alike alone and in a row."""
        corpus, places = self._corpus, []
        tokens: list[int] = []
        for utterance in utterances:
            text, space = corpus.texts[utterance], " " if tokens else ""
            ids, starts = vocabulary.encode(self._tokenizer, space + text) if space else self._tokens[utterance]
            chars = corpus.chars[self._frames_of(utterance)].astype(np.int64) + len(space)
            places.append(len(tokens) + vocabulary.token_at(starts, chars, len(space) + len(text)))
            tokens += ids
        rows = np.concatenate([np.arange(frames.start, frames.stop) for frames in map(self._frames_of, utterances)])
        codes, phones = (array[rows].astype(np.int64) for array in (corpus.codes, corpus.phones))
        return _Spoken(tokens, codes, phones, np.concatenate(places), int(corpus.voices[utterances[0]]))

    def _frames_of(self, utterance: int) -> slice:
        return slice(int(self._corpus.offsets[utterance]), int(self._corpus.offsets[utterance + 1]))

    def _damage(self, codec: npt.NDArray[np.int64], codes: npt.NDArray[np.int64], share: float) -> None:
        """Replace that share of past code 0 by any other, and twice that share of each residual code."""
        hit = (codes[..., 0] >= 0) & (self._random.random(codec.shape) < share)
        codec[hit] = self._random.integers(CODEBOOK_SIZE, size=int(hit.sum()))
        hits = (codes >= 0) & (self._random.random(codes.shape) < 2 * share)
        codes[hits] = self._random.integers(CODEBOOK_SIZE, size=int(hits.sum()))


def special_ids(tokenizer: Tokenizer) -> SpecialIds:
    """Ids of the layout, the role's from the tokenizer."""
    return SpecialIds.of(tokenizer.encode("assistant\n", add_special_tokens=False).ids)


def _filled(shape: tuple[int, ...]) -> npt.NDArray[np.int64]:
    return np.full(shape, NOTHING, np.int64)
