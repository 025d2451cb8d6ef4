"""What the benches of the two models count and compare."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from bench.logits import compare_logits
from bench.roofline import Machine, counted_products, talker_frame
from cli.checkpoint.random import write_random
from services.codec.runner import Runner
from services.codec.schedule import Row
from services.tts_lm.model.config import load_config
from services.tts_lm.model.weights import load_model_weights


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_random(tmp_path_factory.mktemp("tiny"), "tiny", "custom_voice", 0)


def test_a_frame_reads_the_talker_once_and_the_predictor_for_each_code(model: Path) -> None:
    config = load_config(model)
    frames = {}
    for dtype in ("float32", "bfloat16", "int8"):
        weights = load_model_weights(model, config, dtype, torch.device("cpu"))
        frames[dtype] = talker_frame(weights, config, 10)
    talker, predictor = config.talker, config.predictor

    def layer(block) -> int:  # type: ignore[no-untyped-def]
        heads, keys = block.head_count * block.head_size, block.kv_head_count * block.head_size
        return block.hidden_size * (2 * heads + 2 * keys + 3 * block.intermediate_size)

    passes = config.codebook_count - 1
    read = talker.layer_count * layer(talker) + passes * predictor.layer_count * layer(predictor)
    read += config.codec_vocab_size * talker.hidden_size + passes * config.codebook_size * predictor.hidden_size
    read += 10 * talker.layer_count * 2 * talker.kv_head_count * talker.head_size
    assert frames["float32"].byte_count == 4 * read
    assert frames["bfloat16"].byte_count == 2 * read
    assert read < frames["int8"].byte_count < 2 * read
    assert frames["int8"].operation_count == frames["float32"].operation_count > 2 * read


def test_the_floor_is_the_slower_of_reading_and_computing() -> None:
    machine = Machine(bytes_per_s=10, operations_per_s=100)
    assert machine.floor_s(20, 50) == 2
    assert machine.floor_s(20, 500) == 5


def test_every_product_of_the_decoder_is_counted(model: Path) -> None:
    runner = Runner(model, device="cpu", dtype="float32", row_count=1, max_batch=1, max_frames=2)
    runner.warm()
    counts = []
    for frames in (1, 2):
        with counted_products() as seen:
            runner.decode([Row(0, True, [[0] * 16] * frames)])
        counts.append([sum(part) for part in zip(*seen, strict=True)])
    assert counts[0][0] == counts[1][0] > 0  # the same weights
    assert counts[1][1] == 2 * counts[0][1]  # for twice the sound


def test_logits_are_compared_by_what_a_listener_would_get() -> None:
    right = np.random.default_rng(0).normal(size=(3, 50)).astype(np.float32)
    assert compare_logits(right, right) == (0, 1, 0)
    error, agreed, divergence = compare_logits(right, right + 5)  # a constant changes no probability
    assert agreed == 1
    assert divergence == pytest.approx(0, abs=1e-9)
    wrong = right.copy()
    wrong[0, right[0].argmin()] = 100
    error, agreed, divergence = compare_logits(right, wrong)
    assert error > 1
    assert agreed == pytest.approx(2 / 3)
    assert divergence > 1
