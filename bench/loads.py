"""What callers of a benchmark ask for: texts, lengths, and the moments at which they ask. Pure.

A trained voice says sentences of 3 to 30 words and ends by itself. Random weights know no end: their answers last as
long as `draw_seconds` says (log-normal, median 4 s, sigma 0.6, cut to 0.5 … 20 s), cut by `max_frames`, over a text
that is longer than that, so that they cannot end before.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

MEDIAN_S, SIGMA, SHORTEST_S, LONGEST_S = 4.0, 0.6, 0.5, 20.0
FRAME_RATE_HZ = 12.5

SENTENCES = (
    "Yes, of course.",
    "It is ten past four.",
    "The train leaves at seven.",
    "Please leave the keys on the table by the door.",
    "I think we should go back before it starts to rain.",
    "The garden behind the house was full of old apple trees.",
    "She opened the window and looked down at the quiet street.",
    "There was a small boat on the river, and nobody was in it.",
    "You can take the first road on the left and then walk for about ten minutes.",
    "He wanted to know how long it would take, what it would cost, and who was going to pay for it.",
    "When the music stopped, everyone in the room turned around and looked at the man who had just come in.",
    "The morning was cold and clear, and from the top of the hill we could see the whole valley, the river, the bridge "
    "over it, and the white houses of the village on the other side.",
)


@dataclass(frozen=True)
class Line:
    """One answer to ask for. `max_frames` 0: it ends by itself."""

    text: str
    max_frames: int
    seed: int


def draw_seconds(draw: random.Random) -> float:
    """How long an answer lasts."""
    return min(max(draw.lognormvariate(0, SIGMA) * MEDIAN_S, SHORTEST_S), LONGEST_S)


def lines(seed: int, *, ends_by_itself: bool, longest_frames: int = 0) -> Iterator[Line]:
    """Answers without end, the same for the same seed; none longer than `longest_frames` (0: no such limit)."""
    draw = random.Random(seed)
    while True:
        own = draw.getrandbits(32)
        if ends_by_itself:
            yield Line(draw.choice(SENTENCES), longest_frames, own)
            continue
        frames = max(1, round(draw_seconds(draw) * FRAME_RATE_HZ))
        frames = min(frames, longest_frames) if longest_frames else frames
        yield Line(SENTENCES[-1] * (frames // 20 + 1), frames, own)  # more than 20 tokens a sentence


def arrivals(seed: int, rate: float, seconds: float) -> list[float]:
    """Moments of a Poisson process."""
    draw, moments, at_s = random.Random(seed), list[float](), 0.0
    while (at_s := at_s + draw.expovariate(rate)) < seconds:
        moments.append(at_s)
    return moments
