"""Random checkpoints: same seed same bytes, finite and of sane size, refused when dimensions do not fit."""

import time
import tracemalloc
from hashlib import sha256

import numpy as np
import pytest
from safetensors import safe_open

from cli.checkpoint import random, safetensors_file, weights
from cli.checkpoint.random import cached_tiny, configurations, write_random


def tensors(path):
    with safe_open(path, "pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118


def all_bytes(directory):
    files = (path for path in directory.rglob("*") if path.is_file())
    return {str(path.relative_to(directory)): path.read_bytes() for path in files}


def test_the_bytes_of_a_seed_are_those_that_stored_outputs_were_made_with(tmp_path):
    directory = write_random(tmp_path, type="base")
    digests = {
        "model.safetensors": "8eb9022f2ecd357c",
        "speech_tokenizer/model.safetensors": "d9cfa4ebc5c9bca4",
        "vocab.json": "840a370b97ac79da",
        "merges.txt": "05d9663821369612",
    }
    assert random.FORMAT == 1, "other bytes: raise FORMAT, remake tests/reference, and write the new digests here"
    assert {name: sha256((directory / name).read_bytes()).hexdigest()[:16] for name in digests} == digests


@pytest.mark.parametrize("kind", ["custom_voice", "voice_design", "base"])
def test_the_same_seed_gives_the_same_bytes_and_another_seed_other_weights(tmp_path, kind):
    first = all_bytes(write_random(tmp_path / "a", type=kind, seed=7))
    assert all_bytes(write_random(tmp_path / "b", type=kind, seed=7)) == first
    other = all_bytes(write_random(tmp_path / "c", type=kind, seed=8))
    assert {name for name in first if first[name] != other[name]} == {
        "model.safetensors",
        "speech_tokenizer/model.safetensors",
    }


def test_a_tiny_checkpoint_is_small_and_quick(tmp_path):
    begin = time.monotonic()
    directory = write_random(tmp_path, type="base")
    assert time.monotonic() - begin < 3
    assert sum(len(content) for content in all_bytes(directory).values()) < 15e6


@pytest.mark.parametrize("kind", ["custom_voice", "base"])
def test_every_value_is_finite_and_of_the_official_dtype(tmp_path, kind):
    import torch

    directory = write_random(tmp_path, type=kind)
    model, codec = tensors(directory / "model.safetensors"), tensors(directory / "speech_tokenizer/model.safetensors")
    assert {tensor.dtype for tensor in model.values()} == {torch.bfloat16}
    assert {tensor.dtype for tensor in codec.values()} == {torch.float32}
    for name, tensor in (model | codec).items():
        assert torch.isfinite(tensor).all(), name
        assert tensor.abs().max() < 50, name
        if "cluster_usage" in name:
            assert (tensor > 0).all(), name


def test_encoder_and_decoder_hold_the_same_codebooks(tmp_path):
    codec = tensors(write_random(tmp_path) / "speech_tokenizer/model.safetensors")
    for index in range(15):
        ours = codec[f"decoder.quantizer.rvq_rest.vq.layers.{index}._codebook.embedding_sum"]
        theirs = codec[f"encoder.quantizer.acoustic_residual_vector_quantizer.layers.{index}.codebook.embed_sum"]
        assert (ours == theirs).all()


def test_bfloat16_rounds_as_torch_does(tmp_path):
    import torch

    values = np.random.default_rng(0).standard_normal(4096, dtype=np.float32)
    values[:4] = [0.0, -0.0, 1.00390625, 1.01171875]  # the last two lie exactly between two bfloat16 values
    safetensors_file.write(tmp_path / "f", {"x": (4096,)}, "BF16", lambda *_: [values])
    written = tensors(tmp_path / "f")["x"]
    assert torch.equal(written.view(torch.int16), torch.from_numpy(values).to(torch.bfloat16).view(torch.int16))


def test_a_large_tensor_is_made_in_pieces():
    fill = weights.values(seed=0, eos_row=0)
    tracemalloc.start()
    try:
        count = sum(chunk.size for chunk in fill("talker.model.text_embedding.weight", (20_000, 2048)))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert count == 20_000 * 2048
    assert peak < 100e6  # the whole tensor would be 164 MB


def test_overrides_reach_the_configuration_and_the_weights(tmp_path):
    directory = write_random(
        tmp_path,
        codebook_size=32,
        talker_config={"num_hidden_layers": 1, "head_dim": 16, "num_code_groups": 4},
        code_predictor_config={"hidden_size": 64, "num_hidden_layers": 1},
        decoder_config={"sliding_window": 4},
        tts_model_size="0b6",
    )
    model = tensors(directory / "model.safetensors")
    assert model["talker.model.layers.0.self_attn.q_proj.weight"].shape == (64, 64)
    assert "talker.model.layers.1.input_layernorm.weight" not in model
    assert model["talker.codec_head.weight"].shape == (32 + 1024, 64)
    assert "talker.code_predictor.lm_head.2.weight" in model
    assert "talker.code_predictor.lm_head.3.weight" not in model


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ({"like": "7B"}, "unknown size '7B'"),
        ({"type": "singer"}, "unknown type 'singer'"),
        ({"talker_config": {"hiden_size": 8}}, "no field talker_config.hiden_size"),
        ({"colour": "red"}, "no field 'colour'"),
        ({"talker_config": {"vocab_size": 2000}}, "the codebook and 1024 control rows"),
        ({"talker_config": {"text_vocab_size": 100}}, "holds the special ids"),
        ({"decoder_config": {"upsample_rates": [8, 5, 4]}}, "multiply to decode_upsample_rate"),
        ({"decoder_config": {"decoder_dim": 24}}, "halved in every block"),
        ({"speaker_encoder_config": {"enc_dim": 8}}, "only a base checkpoint"),
        ({"type": "base", "speaker_encoder_config": {"enc_dim": 8}}, "as wide as the talker"),
    ],
)
def test_dimensions_that_do_not_fit_are_refused_in_words(overrides, words):
    with pytest.raises(ValueError, match=words):
        configurations(**overrides)


def test_the_cached_checkpoint_is_written_once(tmp_path):
    first = cached_tiny(tmp_path)
    stamp = (first / "model.safetensors").stat().st_mtime_ns
    assert cached_tiny(tmp_path) == first
    assert (first / "model.safetensors").stat().st_mtime_ns == stamp
    assert [path.name for path in tmp_path.iterdir()] == [first.name]
