"""What is heard when an answer failed twice and nobody is left to speak: two soft falling tones. Ready-made, so that it
needs no stage."""

from __future__ import annotations

from functools import cache

import numpy as np

from services.gateway.session.ports import PLAYED_RATE_HZ, Samples

TEXT = "I am sorry, something went wrong. Please try again."
"""The same in words, for those who read."""


@cache
def earcon() -> Samples:
    """0.5 s at 24 kHz, quiet; nobody writes into it."""
    pieces = []
    for hertz, seconds in ((440.0, 0.18), (330.0, 0.32)):
        times = np.arange(round(seconds * PLAYED_RATE_HZ)) / PLAYED_RATE_HZ
        pieces.append(np.sin(2 * np.pi * hertz * times) * np.sin(np.pi * times / seconds) ** 2)
    samples: Samples = np.round(5000 * np.concatenate(pieces)).astype(np.int16)
    samples.setflags(write=False)
    return samples
