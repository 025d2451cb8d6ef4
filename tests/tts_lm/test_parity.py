"""Ours = the reference: prompts, logits, hidden states and greedy codes on random checkpoints of every type."""

from __future__ import annotations

import numpy as np
import pytest

from services.tts_lm.model.sampling import draw
from services.tts_lm.native.library import Library
from services.tts_lm.runner import TorchRunner
from tests.tts_lm.stored import Model, cases, checkpoint_named, load_store, open_checkpoint, sequence, speak
from tools.reference.talker_cases import CHECKPOINTS, TEXTS

PAIRS = [(c.name, case.name) for c in CHECKPOINTS for case in cases(c)]
LOGIT_TOLERANCE = {"torch": 3e-5, "native": 3e-5}
"""The order of sums depends on the processor. Compiled kernels: 2.0e-5 with 512-bit vectors, 2.5e-5 with others;
torch's products (MKL): below 2.0e-5 on an EPYC, 2.2e-5 on a Xeon."""


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Model]:
    root = tmp_path_factory.mktemp("checkpoints")
    return {c.name: open_checkpoint(c, root / c.name) for c in CHECKPOINTS}


@pytest.mark.parametrize(("checkpoint", "case_name"), PAIRS)
@pytest.mark.parametrize("profile", ["batch", "alone", "deterministic"])
def test_greedy_codes_equal_the_reference(
    models: dict[str, Model], checkpoint: str, case_name: str, profile: str, kernels: Library | None
) -> None:
    model, store = models[checkpoint], load_store(checkpoint)
    case = next(c for c in cases(checkpoint_named(checkpoint)) if c.name == case_name)
    runner = model.runner(deterministic=profile == "deterministic", library=kernels)
    lines = [sequence(model, case, i, store, i) for i in range(len(case.lines))]

    spoken = speak(runner, lines, together=profile != "alone")

    for i, frames in enumerate(spoken):
        expected = store[f"{case.name}/codes{i}"]
        assert np.array_equal(np.array(frames, dtype=np.int16).reshape(expected.shape), expected)


@pytest.fixture(params=["torch", "native"])
def kernels(request: pytest.FixtureRequest) -> Library | None:
    return request.getfixturevalue("library") if request.param == "native" else None


class Watched(TorchRunner):
    """Keeps hidden states and raw logits of every step; the computation is untouched."""

    def watch(self) -> None:
        self.hidden: list[np.ndarray] = []
        self.talker_logits: list[np.ndarray] = []
        self.predictor_logits: list[np.ndarray] = []
        logits, predict = self.talker.logits, self.predictor.predict

        def keep_logits(hidden):  # type: ignore[no-untyped-def]
            out = logits(hidden)
            self.hidden.append(hidden.numpy().copy())
            self.talker_logits.append(out.numpy().copy())
            return out

        def by_passes(hidden, code0, uniforms, rows, batch):  # type: ignore[no-untyped-def]
            return self.predictor.predict(hidden, code0, lambda codebook, values: draw(values, uniforms, rows, batch))

        def keep_predictor(hidden, code0, pick):  # type: ignore[no-untyped-def]
            rows: list[np.ndarray] = []

            def kept(codebook, values):  # type: ignore[no-untyped-def]
                rows.append(values.numpy().copy())
                return pick(codebook, values)

            out = predict(hidden, code0, kept)
            self.predictor_logits.append(np.stack(rows))
            return out

        self.talker.logits, self.predictor.predict = keep_logits, keep_predictor  # type: ignore[method-assign]
        self.predictor.frame = by_passes  # type: ignore[method-assign]


@pytest.mark.parametrize(("checkpoint", "case_name"), PAIRS)
def test_logits_and_hidden_states_equal_the_reference(
    models: dict[str, Model], checkpoint: str, case_name: str, kernels: Library | None
) -> None:
    """In the reference's own batch shape: a row is a line, and rows that have ended stay where they are."""
    model, store = models[checkpoint], load_store(checkpoint)
    case = next(c for c in cases(checkpoint_named(checkpoint)) if c.name == case_name)
    count, config = len(case.lines), model.config
    tolerance = LOGIT_TOLERANCE["torch" if kernels is None else "native"]
    runner = Watched(
        model.weights,
        config,
        slot_count=count,
        position_count=2048,
        max_positions=1024,
        deterministic=True,
        library=kernels,
    )
    runner.watch()

    spoken = speak(runner, [sequence(model, case, i, store, i) for i in range(count)])

    keep = [*range(config.codec_vocab_size - 1024), config.codec.eos]
    ours = {
        "hidden": np.stack(runner.hidden),
        "talker_logits": np.stack(runner.talker_logits)[:, :, keep],
        "predictor_logits": np.stack(runner.predictor_logits),
    }
    for i, frames in enumerate(spoken):
        for name, values in ours.items():
            # A row that has ended goes on in a batch of the reference; what it says then is nobody's.
            steps = len(frames) + (name != "predictor_logits" and len(frames) < case.frames)
            row = (slice(None), slice(None), i) if name == "predictor_logits" else (slice(None), i)
            expected = store[f"{case.name}/{name}"][row][:steps]
            assert np.abs(values[row][: len(expected)] - expected).max(initial=0.0) <= tolerance, name


@pytest.mark.parametrize("index", range(len(TEXTS)))
def test_text_ids_equal_the_reference(models: dict[str, Model], index: int) -> None:
    for name, model in models.items():
        assert model.tokenizer.target(TEXTS[index]) == tuple(load_store(name)[f"text/{index}"])
