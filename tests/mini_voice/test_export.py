from __future__ import annotations

from typing import Any, cast

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer

from cli.checkpoint.inspect import inspect
from services.tts_lm.model.tokenizer import load_tokenizer
from tests.mini_voice.conftest import Untrained
from tools.mini_voice import export, speak
from tools.mini_voice.batches import special_ids
from tools.mini_voice.dimensions import CODEBOOK_SIZE, USED_CODEBOOKS
from tools.mini_voice.rows import build
from tools.mini_voice.train_codec import latent
from tools.mini_voice.voices import VOICES

TEXT = "The small grey cat."


def test_an_exported_mini_is_whole_and_small(untrained: Untrained) -> None:
    report = inspect(untrained.directory)
    assert report.whole
    assert list(report.voices) == [voice.name for voice in VOICES]
    assert report.languages == ["english"]
    assert not report.supports_clone
    assert not report.supports_instruct
    assert report.model.file_bytes + report.codec.file_bytes < 40e6


def test_serving_tokenises_as_training_did(untrained: Untrained, tokenizer: Tokenizer) -> None:
    served = load_tokenizer(untrained.directory)
    for text in ("Hello there.", "It's 12 o'clock, isn't it?", " leading", "naïve café", "a  b\nc"):
        assert list(served.encode(text)) == tokenizer.encode(text, add_special_tokens=False).ids
    assert len(served.role()) == 3


def test_the_codec_decodes_what_the_trained_network_decodes(untrained: Untrained) -> None:
    codes = torch.randint(CODEBOOK_SIZE, (1, 20, 16), generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        expected = untrained.decoder(latent(codes, untrained.entries))[0].clamp(-1, 1)
    (found,) = speak.decode(untrained.directory, [[tuple(frame) for frame in codes[0].tolist()]])
    assert len(found) == 20 * 1920
    assert expected.abs().max() > 0.005
    assert np.abs(found - expected.numpy()).max() < 1e-4  # 16-bit samples


@pytest.mark.parametrize("layout", ["streaming", "whole"])
def test_the_engine_says_what_the_trained_network_would_say(
    untrained: Untrained, tokenizer: Tokenizer, layout: str
) -> None:
    (said,) = speak.speak(untrained.directory, [TEXT], "mina", layout=layout, greedy=True)
    codes = np.array(said.codes)[:24]
    assert len(codes) == 24
    assert len({tuple(frame) for frame in codes.tolist()}) > 5
    tokens = tokenizer.encode(TEXT, add_special_tokens=False).ids
    rows = build(
        special_ids(tokenizer),
        tokens,
        codes[:, :USED_CODEBOOKS],
        np.zeros(len(codes), np.int64),
        1,
        whole=layout == "whole",
    )
    text, codec, residual = (torch.from_numpy(x)[None] for x in (rows.text, rows.codec, rows.codes))
    with torch.no_grad():
        heard = untrained.talker(untrained.talker.rows(text, codec, residual))
        hidden = heard.hidden[0, len(rows) - 1 - len(codes) : -1]
        code0 = untrained.talker.talker.codec_head(hidden)[:, :CODEBOOK_SIZE].argmax(1)
        logits = untrained.talker.residual_logits(hidden, torch.from_numpy(codes[:, :USED_CODEBOOKS]))
    assert code0.tolist() == codes[:, 0].tolist()
    assert [rows.argmax(1).tolist() for rows in logits] == codes[:, 1:USED_CODEBOOKS].T.tolist()


def test_what_fits_nowhere_is_named(untrained: Untrained, tokenizer: Tokenizer, tmp_path: Any) -> None:
    decoder = dict(untrained.decoder.state_dict())
    decoder["pre_conv.conv.weight"] = torch.zeros(1)
    with pytest.raises(ValueError, match=r"pre_conv\.conv\.weight"):
        export.export(
            tmp_path, untrained.talker.state_dict(), cast("export.Tensors", decoder), untrained.books, tokenizer
        )
