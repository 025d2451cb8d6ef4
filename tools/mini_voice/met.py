"""Which words of a text were left out or said twice, found by time alignment to the synthesiser's rendering.

The synthesiser says when each of its words begins. A word that is missing leaves its stretch of the alignment no time
to pass in; one that comes twice finds no stretch of its own, so that time stands still while it is said.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from tools.mini_voice import features
from tools.mini_voice.distance import align, costs_between
from tools.mini_voice.synthesiser import Speech
from tools.mini_voice.timing import FRAME_S, LEAD_FRAMES

HOP_S = features.HOP_SAMPLES / features.SAMPLE_RATE_HZ
LEAST_SHARE = 0.5
"""Of its time, what a word must at least be given."""
EXCESS_S, EXCESS_SHARE = 0.1, 0.7
"""How much more may be said at one place than the reference says there, and not be made up for around it: in seconds,
and as a share of the word there, for a word may be drawn out.

All three chosen on sixty sentences, decoded codes with a word cut out or doubled at random. Of the words cut out 54 are
found at a least share of 0.45 and 59 at 0.55, of the doubled ones 55; none of the sixty is blamed, neither as the
talker said them nor with 0.3 s of silence before a word.
"""
_HALT_HOPS, _HALT_ROWS, _AROUND_HOPS, _NEAR_ROWS = 10, 4, 40, 2
_SHORTEST_WORD_HOPS = 6
_SILENT_DB, _PAUSE_HOPS = -40.0, 12


@dataclass(frozen=True)
class Met:
    """Of `total` words, how many were skipped; and how often something was said that has no place."""

    skipped: int
    repeated: int
    total: int
    distance_db: float

    @property
    def whole(self) -> bool:
        return not (self.skipped or self.repeated)


def met(rendering: Speech, reference: features.Array, samples: features.Array) -> Met:
    """`reference` are the samples of `rendering` with the silence that leads every utterance."""
    spans = word_spans(rendering)
    if len(samples) == 0:
        return Met(len(spans), 0, len(spans), math.inf)
    found = align(costs_between(reference, samples))
    rows, columns = found.path[:, 0], found.path[:, 1]
    skipped = sum(_share(rows, columns, first, last) < LEAST_SHARE for first, last in spans)
    return Met(skipped, halts(rows, columns, voiced(reference), voiced(samples), spans), len(spans), found.cost)


def word_spans(rendering: Speech) -> list[tuple[int, int]]:
    """First and last hop of each word in the reference, up to the next word or the pause behind it."""
    starts = [word.start_s for word in rendering.words]
    pauses = [phone.start_s for phone in rendering.phones if phone.name.startswith("_")]
    end_s = len(rendering.samples) / features.SAMPLE_RATE_HZ
    spans = []
    for start, following in zip(starts, [*starts[1:], end_s], strict=True):
        end = min([pause for pause in pauses if start < pause <= following], default=following)
        first, last = (int((s + LEAD_FRAMES * FRAME_S) / HOP_S) for s in (start, end))
        if last - first >= _SHORTEST_WORD_HOPS:
            spans.append((first, last - 1))
    return spans


def voiced(samples: features.Array) -> npt.NDArray[np.bool_]:
    """Which hops are no pause: a silence shorter than that belongs to a word."""
    hops = features.frames_of(samples).reshape(-1, features.HOP_SAMPLES)
    found = 10 * np.log10(np.square(hops).mean(1) + 1e-12) > _SILENT_DB
    sounding = np.flatnonzero(found)
    for before, after in pairwise(sounding.tolist()):
        if after - before <= _PAUSE_HOPS:
            found[before:after] = True
    return np.asarray(found)


def halts(
    rows: npt.NDArray[np.int64],
    columns: npt.NDArray[np.int64],
    asked: npt.NDArray[np.bool_],
    audible: npt.NDArray[np.bool_],
    spans: Sequence[tuple[int, int]],
) -> int:
    """How often more was said than the reference has at that place: sound that goes on while the reference stands.

    `asked` and `audible` are which hops of the reference and of what was said are no pause: a longer one says nothing.
    """
    where = np.flatnonzero(np.diff(columns, prepend=-1) > 0)  # the path at the first row of each column
    row_of = rows[where]
    ahead = np.cumsum(audible[: len(row_of)]) - np.cumsum(asked)[row_of]
    count, column = 0, 0
    while column + _HALT_HOPS < len(row_of):
        behind = column + _HALT_HOPS
        stands = row_of[behind] - row_of[column] <= _HALT_ROWS and audible[column:behind].mean() > 0.7
        around = max(0, column - _AROUND_HOPS), min(len(ahead) - 1, behind + _AROUND_HOPS)
        excess = ahead[around[1]] - ahead[around[0]]
        if stands and excess >= _enough(spans, int(row_of[column]), int(row_of[behind])):
            count, column = count + 1, behind + _AROUND_HOPS
        else:
            column += 1
    return count


def _enough(spans: Sequence[tuple[int, int]], first: int, last: int) -> float:
    """Hops of excess that are a word more, where the alignment stands between two rows of the reference."""
    there = [b - a + 1 for a, b in spans if a <= last + _NEAR_ROWS and b >= first - _NEAR_ROWS]
    return max(EXCESS_S / HOP_S, EXCESS_SHARE * min(there, default=0))


def _share(rows: npt.NDArray[np.int64], columns: npt.NDArray[np.int64], first: int, last: int) -> float:
    inside = columns[(rows >= first) & (rows <= last)]
    return float((inside[-1] - inside[0] + 1) / (last - first + 1))
