"""Whether a turn sounds complete, by its words and by a model file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from transformers import WhisperFeatureExtractor

from common.errors import NotReady
from services.gateway.hearing.smart_turn import BANDS, FRAMES, SmartTurnModel, log_mel
from services.gateway.hearing.turn_model import UNKNOWN, LexicalTurnModel
from tests.gateway.hearing.reference import speech

NOTHING = np.zeros(0, np.int16)


@pytest.mark.parametrize(
    ("text", "verdict"),
    [
        ("What time is it?", "complete"),
        ("I said “stop!”", "complete"),
        ("现在几点了？", "complete"),
        ("I would like to", "incomplete"),
        ("My number is um", "incomplete"),
        ("Well,", "incomplete"),
        ("wait …", "incomplete"),
        ("我想要一个", "unknown"),
        ("因为", "incomplete"),
        ("现在几点了", "complete"),
        ("The code is four 7", "incomplete"),
        ("turn on the light", "unknown"),
        ("", "unknown"),
    ],
)
def test_words_say_whether_more_is_coming(text: str, verdict: str) -> None:
    p = LexicalTurnModel().p_complete(NOTHING, text)
    assert verdict == ("complete" if p >= 0.7 else "incomplete" if p < 0.3 else "unknown")


def test_nothing_is_known_without_words() -> None:
    assert LexicalTurnModel().p_complete(speech()) == UNKNOWN


@pytest.mark.parametrize("count", [0, 1, 30_000, 128_000, 200_000])
def test_the_features_are_those_of_whisper(count: int) -> None:
    samples = np.resize(speech(), count).astype(np.int16)
    sound = np.zeros(128_000, np.float32)
    if count:
        sound[-min(count, 128_000) :] = samples[-128_000:] / np.float32(32768)
    theirs = WhisperFeatureExtractor(chunk_length=8)(
        sound, sampling_rate=16_000, return_tensors="np", do_normalize=True
    ).input_features[0]
    ours = log_mel(samples)
    assert ours.dtype == np.float32
    assert np.abs(ours - theirs).max() < 1e-4


def graph(path: Path, bands: int = BANDS) -> Path:
    """A model file like the real one, that answers with the mean of what it hears."""
    features = helper.make_tensor_value_info("input_features", TensorProto.FLOAT, ["batch", bands, FRAMES])
    answer = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 1])
    mean = helper.make_node("ReduceMean", ["input_features"], ["mean"], axes=[1, 2], keepdims=0)
    shape = helper.make_node("Reshape", ["mean", "shape"], ["logits"])
    wanted = helper.make_tensor("shape", TensorProto.INT64, [2], [-1, 1])
    model = helper.make_model(
        helper.make_graph([mean, shape], "smart-turn", [features], [answer], [wanted]),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=8,
    )
    onnx.save(model, path)
    return path


def test_a_model_file_hears_the_last_eight_seconds(tmp_path: Path) -> None:
    model = SmartTurnModel(graph(tmp_path / "turn.onnx"))
    expected = float(np.clip(log_mel(speech()).mean(), 0, 1))
    assert model.p_complete(speech()) == pytest.approx(expected, abs=1e-5)
    long = np.concatenate((np.full(99_999, 9_000, np.int16), np.resize(speech(), 128_000)))
    assert model.p_complete(long) == model.p_complete(long[-128_000:])


def test_a_file_that_is_not_there_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(NotReady, match="no turn model"):
        SmartTurnModel(tmp_path / "nothing.onnx")


def test_a_file_of_something_else_is_no_model(tmp_path: Path) -> None:
    (tmp_path / "text.onnx").write_text("hello")
    with pytest.raises(NotReady, match="cannot be loaded"):
        SmartTurnModel(tmp_path / "text.onnx")
    with pytest.raises(NotReady, match="does not take"):
        SmartTurnModel(graph(tmp_path / "other.onnx", bands=128))
