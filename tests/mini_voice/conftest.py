"""A small corpus of invented codes, and an untrained mini exported once: no synthesiser, no training."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer
from torch import Tensor

from tools.mini_voice import export, train_codec, train_talker, vocabulary
from tools.mini_voice.codebooks import Codebooks
from tools.mini_voice.codec_net import CodecDecoder
from tools.mini_voice.corpus import Corpus
from tools.mini_voice.dimensions import CODEBOOK_COUNT, CODEBOOK_SIZE, ENTRY_WIDTH, ENVELOPE_WIDTH, USED_CODEBOOKS
from tools.mini_voice.phrases import WORDS
from tools.mini_voice.talker_net import MiniTalker
from tools.mini_voice.text import Writer

LEXICON = [(word, 1.0 / (rank + 1)) for rank, word in enumerate(WORDS["noun"].split())]


@dataclass(frozen=True)
class Untrained:
    directory: Path
    talker: MiniTalker
    decoder: CodecDecoder
    entries: Tensor
    books: Codebooks


@pytest.fixture(scope="session")
def corpus() -> Corpus:
    writer, chance = Writer(3, LEXICON), np.random.default_rng(0)
    texts = [writer.sentence() for _ in range(400)]
    lengths = [max(6, len(text)) for text in texts]
    frames = sum(lengths)
    chars = np.concatenate([np.linspace(0, len(t), n).astype(np.uint16) for t, n in zip(texts, lengths, strict=True)])
    return Corpus(
        texts=texts,
        phone_names=["_", "a", "b"],
        voices=chance.integers(2, size=len(texts)).astype(np.uint8),
        offsets=np.cumsum([0, *lengths]),
        codes=chance.integers(CODEBOOK_SIZE, size=(frames, USED_CODEBOOKS)).astype(np.uint16),
        chars=chars,
        phones=chance.integers(3, size=(frames, 2)).astype(np.uint8),
    )


@pytest.fixture(scope="session")
def tokenizer(corpus: Corpus) -> Tokenizer:
    return vocabulary.train(corpus.texts)


@pytest.fixture(scope="session")
def untrained(tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> Untrained:
    """Random weights, rounded as the file holds them, so that network and checkpoint are the same numbers."""
    torch.manual_seed(1)
    talker, decoder = train_talker.build(3), train_codec.build()
    with torch.no_grad():
        for parameter in talker.parameters():
            parameter.copy_(parameter.to(torch.bfloat16))
        talker.talker.codec_head.weight.mul_(20)
        for head in talker.talker.code_predictor.lm_head.parameters():
            head.mul_(20)
    entries = torch.randn(CODEBOOK_COUNT, CODEBOOK_SIZE, ENTRY_WIDTH)
    entries[USED_CODEBOOKS:] = 0
    books = Codebooks(
        mean=torch.randn(320),
        basis=torch.randn(320, ENVELOPE_WIDTH),
        phonetic=torch.randn(ENVELOPE_WIDTH, 3),
        pitch_centre=torch.tensor(4.9),
        entries=entries * 2,
        scale=torch.full((ENTRY_WIDTH,), 0.5),
    )
    directory = tmp_path_factory.mktemp("mini")
    export.export(directory, talker.state_dict(), decoder.state_dict(), books, tokenizer)
    return Untrained(directory, talker.eval(), decoder.eval(), entries, books)
