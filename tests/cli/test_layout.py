"""The layout tables against the published files: names, counts, and sizes to the byte, without writing them."""

import hashlib
import json
from pathlib import Path

import pytest
from safetensors.numpy import save_file

from cli.checkpoint import layout, official
from cli.checkpoint.random import configurations, model_metadata, write_random
from cli.checkpoint.safetensors_file import file_bytes, header_bytes

PUBLISHED = [
    # size, type, bytes of model.safetensors, parameters, tensors (model document, section 1)
    ("0.6B", "base", 1_829_344_272, 914_643_008, 478),
    ("0.6B", "custom_voice", 1_811_626_576, 905_788_672, 402),
    ("1.7B", "base", 3_857_413_744, 1_928_677_440, 480),
    ("1.7B", "custom_voice", 3_833_402_552, 1_916_676_352, 404),
    ("1.7B", "voice_design", 3_833_402_552, 1_916_676_352, 404),
]


@pytest.mark.parametrize(("like", "kind", "size", "parameters", "tensors"), PUBLISHED)
def test_the_weights_have_the_published_size_and_counts(like, kind, size, parameters, tensors):
    shapes = layout.model_tensors(configurations(like, kind)[0])
    assert len(shapes) == tensors
    assert layout.parameter_count(shapes.values()) == parameters
    assert file_bytes(shapes, "BF16", model_metadata(kind)) == size


@pytest.mark.parametrize("like", ["0.6B", "1.7B"])
def test_the_codec_has_the_published_size_and_counts(like):
    shapes = layout.codec_tensors(configurations(like)[1])
    assert len(shapes) == 496
    assert layout.parameter_count(shapes.values()) == 170_557_441
    assert file_bytes(shapes, "F32") == 682_293_092


def test_the_header_is_what_the_safetensors_library_writes(tmp_path):
    write_random(tmp_path / "ours")
    import numpy as np

    shapes = layout.codec_tensors(configurations()[1])
    save_file({name: np.zeros(shape, np.float32) for name, shape in shapes.items()}, tmp_path / "theirs")
    expected = header_bytes(shapes, "F32")
    assert (tmp_path / "theirs").read_bytes()[: len(expected)] == expected
    assert (tmp_path / "ours/speech_tokenizer/model.safetensors").read_bytes()[: len(expected)] == expected
    # The same with the metadata entry that the published CustomVoice files carry.
    small = {"b": (2, 3), "a": (4,)}
    zeros = {name: np.zeros(shape, np.float32) for name, shape in small.items()}
    save_file(zeros, tmp_path / "metadata", {"format": "pt"})
    expected = header_bytes(small, "F32", {"format": "pt"})
    assert (tmp_path / "metadata").read_bytes()[: len(expected)] == expected


def test_every_parameter_belongs_to_exactly_one_part():
    for like in official.SIZES:
        for kind in official.MODEL_TYPES:
            model, codec = configurations(like, kind)
            for shapes, parts in (
                (layout.model_tensors(model), layout.MODEL_PARTS),
                (layout.codec_tensors(codec), layout.CODEC_PARTS),
            ):
                counted = sum(layout.parameters_by_part(shapes, parts).values())
                assert counted == layout.parameter_count(shapes.values())


def test_the_parts_have_the_published_millions():
    expected = {"0.6B": (440.47, 78.66, 8.85), "1.7B": (1409.41, 78.66, 12.00)}
    for like, (talker, predictor, speaker) in expected.items():
        parts = layout.parameters_by_part(layout.model_tensors(configurations(like, "base")[0]), layout.MODEL_PARTS)
        assert parts["talker layers"] / 1e6 == pytest.approx(talker, abs=0.005)
        assert parts["code predictor layers"] / 1e6 == pytest.approx(predictor, abs=0.005)
        assert parts["speaker encoder"] / 1e6 == pytest.approx(speaker, abs=0.005)


def test_the_projection_is_there_only_where_the_hidden_sizes_differ():
    name = "talker.code_predictor.small_to_mtp_projection.weight"
    assert name not in layout.model_tensors(configurations("0.6B")[0])
    assert name in layout.model_tensors(configurations("1.7B")[0])
    assert name in layout.model_tensors(configurations("tiny")[0])
    equal = configurations("tiny", code_predictor_config={"hidden_size": 64})[0]
    assert name not in layout.model_tensors(equal)


def test_the_real_sizes_carry_the_published_ids():
    config = configurations("0.6B", "custom_voice")[0]
    talker = config["talker_config"]
    assert [config[f"{name}_token_id"] for name in ("im_start", "im_end", "tts_pad", "tts_bos", "tts_eos")] == [
        151644, 151645, 151671, 151672, 151673,
    ]  # fmt: skip
    names = ("pad_id", "bos_id", "eos_token_id", "think_id", "nothink_id", "think_bos_id", "think_eos_id")
    assert [talker[f"codec_{name}"] for name in names] == [2148, 2149, 2150, 2154, 2155, 2156, 2157]
    assert talker["codec_language_id"] == {
        "english": 2050, "german": 2053, "spanish": 2054, "chinese": 2055, "japanese": 2058, "french": 2061,
        "korean": 2064, "russian": 2069, "italian": 2070, "portuguese": 2071,
        "sichuan_dialect": 2062, "beijing_dialect": 2074,
    }  # fmt: skip
    assert talker["spk_id"] == {
        "aiden": 2861, "sohee": 2864, "ono_anna": 2873, "eric": 2875, "dylan": 2878, "uncle_fu": 3010,
        "ryan": 3061, "vivian": 3065, "serena": 3066,
    }  # fmt: skip
    assert {name for name, dialect in talker["spk_is_dialect"].items() if dialect} == {"eric", "dylan"}


def test_every_control_id_of_any_size_lies_in_the_last_1024_rows():
    for like in official.SIZES:
        talker = configurations(like, "custom_voice")[0]["talker_config"]
        control = [talker[name] for name in official.CONTROL_IDS]
        control += [*talker["codec_language_id"].values(), *talker["spk_id"].values()]
        assert len(set(control)) == len(control)
        assert all(talker["vocab_size"] - 1024 <= index < talker["vocab_size"] for index in control)


def test_the_generation_config_has_the_published_hash(tmp_path):
    written = (write_random(tmp_path) / "generation_config.json").read_bytes()
    assert hashlib.sha256(written).hexdigest().startswith("f1b90b4513f3")
    assert json.loads(written)["max_new_tokens"] == 8192


def test_all_files_of_the_official_layout_are_written(tmp_path):
    written = {str(path.relative_to(tmp_path)) for path in Path(write_random(tmp_path)).rglob("*") if path.is_file()}
    assert written == {
        "config.json", "generation_config.json", "tokenizer_config.json", "vocab.json", "merges.txt",
        "preprocessor_config.json", "model.safetensors", "speech_tokenizer/config.json",
        "speech_tokenizer/configuration.json", "speech_tokenizer/preprocessor_config.json",
        "speech_tokenizer/model.safetensors",
    }  # fmt: skip
