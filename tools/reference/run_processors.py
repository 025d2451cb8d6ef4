"""Runs inside the reference environment: what its logits processors keep, on logits with ties, for many settings.

`python -m tools.reference.run_processors OUT.npz`; started by talker.py. The processors and their order are those that
transformers 4.57.3 builds for the reference's `generate` (model document 5.2).
"""

from __future__ import annotations

import sys

import numpy as np
import torch
from transformers import (
    LogitsProcessorList,
    MinNewTokensLengthLogitsProcessor,
    RepetitionPenaltyLogitsProcessor,
    SuppressTokensLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

VOCABULARY, SUPPRESSED, EOS = 1088, 1024, 166
SETTINGS = [
    (temperature, top_k, top_p, penalty)
    for temperature in (0.9, 0.3, 1.7)
    for top_k in (0, 1, 5, 50)
    for top_p in (1.0, 0.8, 0.2)
    for penalty in (1.0, 1.05, 1.4)
]


def processors(temperature: float, top_k: int, top_p: float, penalty: float) -> LogitsProcessorList:
    """The list of the reference for one setting; the prompt is given as embeddings, so history starts empty."""
    suppressed = [i for i in range(VOCABULARY - SUPPRESSED, VOCABULARY) if i != EOS]
    found = [
        RepetitionPenaltyLogitsProcessor(penalty),
        MinNewTokensLengthLogitsProcessor(0, 2, EOS, device="cpu"),
        SuppressTokensLogitsProcessor(suppressed, device="cpu"),
        TemperatureLogitsWarper(temperature),
    ]
    found += [TopKLogitsWarper(top_k)] if top_k else []
    found += [TopPLogitsWarper(top_p)] if top_p < 1 else []
    return LogitsProcessorList(found)


def main() -> int:
    generator = torch.Generator().manual_seed(0)
    # Rounded to eighths: many exact ties, at the top-k threshold too, as in bfloat16.
    logits = (torch.randn(len(SETTINGS), VOCABULARY, generator=generator) * 24).round() / 8
    logits[:, EOS] += 4
    lengths = torch.randint(0, 8, (len(SETTINGS),), generator=generator).tolist()
    history = torch.randint(0, VOCABULARY - SUPPRESSED, (len(SETTINGS), 8), generator=generator)
    probabilities = []
    for row, (setting, length) in enumerate(zip(SETTINGS, lengths, strict=True)):
        scores = processors(*setting)(history[row : row + 1, :length], logits[row : row + 1].clone())
        probabilities.append(scores.softmax(-1))
    np.savez_compressed(
        sys.argv[1],
        logits=logits.numpy(),
        lengths=np.array(lengths),
        history=history.numpy().astype(np.int16),
        settings=np.array(SETTINGS),
        probabilities=torch.cat(probabilities).numpy(),
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
