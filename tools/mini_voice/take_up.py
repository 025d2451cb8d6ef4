"""A finished voice → what a work directory needs to train it further: the inverse of `export`, and of the card.

Its weights become the first state of both trainings, its tokens the vocabulary, its rows and its analysis the
codebooks: fitted again they would be as good, but other ones, and the voice would be taught codes of another meaning.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from tools.mini_voice.clock import seed
from tools.mini_voice.codebooks import Codebooks
from tools.mini_voice.dimensions import CODEBOOK_COUNT, USED_CODEBOOKS
from tools.mini_voice.export import ANALYSIS_FILE

_STEPS = re.compile(r"^\| steps \| codec (\d+), talker (\d+) \|$", re.MULTILINE)
_VOCABULARY = ("vocab.json", "merges.txt", "tokenizer_config.json")
_EMPTY_BOOK = re.compile(r"^talker\.code_predictor\.(?:model\.codec_embedding|lm_head)\.(\d+)\.")


def take_up(voice: Path, work: Path) -> None:
    """Begin both trainings in `work` at the weights of `voice`; what is there already is left alone."""
    codec_step, talker_step = steps((voice / "README.md").read_text(encoding="utf-8"))
    if not (work / "codec.pt").exists():
        seed(work / "codec.pt", decoder_weights(voice), codec_step)
    if not (work / "talker.pt").exists():
        seed(work / "talker.pt", talker_weights(voice), talker_step)
    if not (work / "codebooks.npz").exists():
        Codebooks.load(voice / ANALYSIS_FILE, scaled_entries(voice)).save(work / "codebooks.npz")
    (work / "vocabulary").mkdir(exist_ok=True)
    for name in _VOCABULARY:
        shutil.copyfile(voice / name, work / "vocabulary" / name)


def steps(card: str) -> tuple[int, int]:
    """Steps of the codec and of the talker that a model card tells."""
    found = _STEPS.search(card)
    if found is None:
        raise ValueError("the model card does not say how many steps were trained")
    return int(found[1]), int(found[2])


def talker_weights(voice: Path) -> dict[str, Tensor]:
    """float32, by the names of the trainable network, which has no tables for the books that carry nothing."""
    values = load_file(voice / "model.safetensors")
    return {name: tensor.float() for name, tensor in values.items() if not _of_empty_book(name)}


def decoder_weights(voice: Path) -> dict[str, Tensor]:
    """By the names of the trainable network, whose books are no parameters."""
    values = load_file(voice / "speech_tokenizer" / "model.safetensors")
    prefix, books = "decoder.", "decoder.quantizer."
    return {
        name.removeprefix(prefix): tensor
        for name, tensor in values.items()
        if name.startswith(prefix) and not name.startswith(books)
    }


def scaled_entries(voice: Path) -> Tensor:
    """[16, 512, D] as the decoder sees them."""
    values = load_file(voice / "speech_tokenizer" / "model.safetensors")
    return torch.stack([_rows(values, book) for book in range(CODEBOOK_COUNT)])


def _rows(values: Mapping[str, Tensor], book: int) -> Tensor:
    branch, layer = ("rvq_first", 0) if book == 0 else ("rvq_rest", book - 1)
    prefix = f"decoder.quantizer.{branch}.vq.layers.{layer}._codebook"
    return values[f"{prefix}.embedding_sum"] / values[f"{prefix}.cluster_usage"][:, None]


def _of_empty_book(name: str) -> bool:
    book = _EMPTY_BOOK.match(name)
    return book is not None and int(book[1]) >= USED_CODEBOOKS - 1
