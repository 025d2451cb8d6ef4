"""`checkpoint inspect`: what a directory is, what it lacks, and a sentence for whatever cannot be read."""

import json
import shutil

import pytest

from cli.checkpoint.inspect import CheckpointUnreadable, codec_state_numbers, inspect, kv_bytes_per_position
from cli.checkpoint.random import configurations, write_random
from cli.checkpoint.safetensors_file import read_header, write


@pytest.fixture
def tiny(tmp_path):
    return write_random(tmp_path / "tiny")


def edit(path, **changes):
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_a_whole_checkpoint_is_described(tiny):
    report = inspect(tiny)
    assert report.whole
    assert report.published_as is None
    assert (report.model_type, report.supports_instruct, report.supports_clone) == ("custom_voice", True, False)
    assert next(iter(report.voices)) == "serena"
    assert report.voices["eric"] == "sichuan_dialect"
    assert len(report.languages) == 10
    assert report.model.dtypes == {"BF16": 96}
    assert report.codec.dtypes == {"F32": 358}
    assert report.model.parameter_count == sum(report.model.parameters.values())
    assert report.dimensions["samples_per_frame"] == 1920


@pytest.mark.parametrize(("kind", "instruct", "clone"), [("voice_design", True, False), ("base", False, True)])
def test_the_type_says_what_a_model_can_do(tmp_path, kind, instruct, clone):
    report = inspect(write_random(tmp_path, type=kind))
    assert report.whole
    assert (report.supports_instruct, report.supports_clone, report.voices) == (instruct, clone, {})


def test_memory_per_slot_is_the_model_documents():
    model, codec = configurations("0.6B")
    assert kv_bytes_per_position(model["talker_config"]) == 114_688
    assert codec_state_numbers(codec["decoder_config"]) == 1_304_736


def test_missing_surplus_and_misshapen_tensors_are_named(tiny):
    path = tiny / "speech_tokenizer/model.safetensors"
    shapes = {name: entry.shape for name, entry in read_header(path)[0].items()}
    del shapes["decoder.pre_conv.conv.bias"]
    shapes["decoder.extra"] = (3,)
    shapes["decoder.pre_transformer.norm.weight"] = (5,)
    import numpy as np

    write(path, shapes, "F32", lambda _, shape: [np.zeros(shape, np.float32)])
    report = inspect(tiny)
    assert not report.whole
    assert report.model.whole
    assert report.codec.missing == ["decoder.pre_conv.conv.bias"]
    assert report.codec.surplus == ["decoder.extra"]
    assert report.codec.misshapen == ["decoder.pre_transformer.norm.weight: [5], expected [32]"]


def test_shards_behind_an_index_are_one_model(tiny):
    whole = tiny / "model.safetensors"
    shapes = {name: entry.shape for name, entry in read_header(whole)[0].items()}
    import numpy as np

    names, weight_map = sorted(shapes), {}
    for shard, part in (("model-1.safetensors", names[::2]), ("model-2.safetensors", names[1::2])):
        write(tiny / shard, {n: shapes[n] for n in part}, "BF16", lambda _, shape: [np.zeros(shape, np.float32)])
        weight_map |= dict.fromkeys(part, shard)
    whole.unlink()
    (tiny / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    assert inspect(tiny).whole
    (tiny / "model-2.safetensors").unlink()
    with pytest.raises(CheckpointUnreadable, match=r"model-2\.safetensors"):
        inspect(tiny)


def damage(name):
    def decorate(function):
        DAMAGES[name] = function
        return function

    return decorate


DAMAGES = {}


@damage("is not a directory")
def _(path):
    shutil.rmtree(path)


@damage(r"config\.json is missing")
def _(path):
    (path / "config.json").unlink()


@damage("cannot be read")
def _(path):
    (path / "config.json").write_text("{")


@damage("not an object")
def _(path):
    (path / "config.json").write_text("[]")


@damage("25 Hz model")
def _(path):
    edit(path / "config.json", tokenizer_type="qwen3_tts_tokenizer_25hz")


@damage("25 Hz codec")
def _(path):
    edit(path / "speech_tokenizer/config.json", model_type="qwen3_tts_tokenizer_25hz")


@damage("the codec alone")
def _(path):
    shutil.copy(path / "speech_tokenizer/config.json", path / "config.json")


@damage("of type 'llama'")
def _(path):
    edit(path / "config.json", model_type="llama")


@damage("not the official file")
def _(path):
    config = json.loads((path / "config.json").read_text())
    del config["talker_config"]
    (path / "config.json").write_text(json.dumps(config))


@damage("lacks or misstates 'hidden_size'")
def _(path):
    config = json.loads((path / "config.json").read_text())
    del config["talker_config"]["hidden_size"]
    (path / "config.json").write_text(json.dumps(config))


@damage("tts_model_type is 'singer'")
def _(path):
    edit(path / "config.json", tts_model_type="singer")


@damage(r"model\.safetensors is missing")
def _(path):
    (path / "model.safetensors").unlink()


@damage("is cut short")
def _(path):
    whole = (path / "model.safetensors").read_bytes()
    (path / "model.safetensors").write_bytes(whole[:-100])


@damage("its header claims")
def _(path):
    whole = (path / "model.safetensors").read_bytes()
    (path / "model.safetensors").write_bytes(whole[:1000])


@damage("too short")
def _(path):
    (path / "model.safetensors").write_bytes(b"")


@damage("no readable safetensors header")
def _(path):
    whole = (path / "model.safetensors").read_bytes()
    (path / "model.safetensors").write_bytes(whole[:8] + b"x" * (len(whole) - 8))


@pytest.mark.parametrize("words", DAMAGES)
def test_a_damaged_directory_is_told_in_a_sentence(tiny, words):
    DAMAGES[words](tiny)
    with pytest.raises(CheckpointUnreadable, match=words):
        inspect(tiny)
