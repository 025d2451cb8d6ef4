"""Parity at the real 0.6B dimensions. Takes 2 GB of disk, 6 GB of memory and minutes, so it runs on demand."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from tests.tts_lm.stored import load_store, open_checkpoint, sequence, speak
from tests.tts_lm.test_parity import Watched
from tools.reference.talker_cases import REAL, REAL_CASES

TOLERANCE = 1e-4
"""float32 over 28 layers of width 1024; the logits span ±15. The greedy codes must be equal all the same."""


@pytest.mark.skipif(
    "VOICEMESH_REAL_DIMENSIONS" not in os.environ, reason="VOICEMESH_REAL_DIMENSIONS=1 asks for the real dimensions"
)
@pytest.mark.timeout(600)
@pytest.mark.parametrize("kernels", ["torch", "native"])
def test_greedy_codes_and_logits_equal_the_reference_at_real_dimensions(
    request: pytest.FixtureRequest, tmp_path: Path, kernels: str
) -> None:
    library = request.getfixturevalue("library") if kernels == "native" else None
    model, store = open_checkpoint(REAL, tmp_path / REAL.name), load_store(REAL.name)
    for case in REAL_CASES:
        sizes = {"slot_count": 1, "position_count": 256, "max_positions": 256}
        runner = Watched(model.weights, model.config, **sizes, library=library)
        runner.watch()

        spoken = speak(runner, [sequence(model, case, 0, store, 0)])[0]

        assert np.array_equal(np.array(spoken, dtype=np.int16), store[f"{case.name}/codes0"])
        config = model.config
        keep = [*range(config.codec_vocab_size - 1024), config.codec.eos]
        hidden = np.stack(runner.hidden)[: len(spoken), 0, ::32]
        talker = np.stack(runner.talker_logits)[: len(spoken), 0][:, keep][:, ::32]
        predictor = np.stack(runner.predictor_logits)[:, :, 0, ::32]
        for name, ours in (("hidden", hidden), ("talker_logits", talker), ("predictor_logits", predictor)):
            theirs = store[f"{case.name}/{name}"]
            theirs = theirs[:, :, 0] if name == "predictor_logits" else theirs[:, 0]
            count = min(len(ours), len(theirs))
            print(case.name, name, float(np.abs(ours[:count] - theirs[:count]).max()))
            assert np.abs(ours[:count] - theirs[:count]).max() <= TOLERANCE, name
