"""Stage 5: what was trained → a checkpoint directory in the official layout, every tensor accounted for.

The books that are not used hold zeros, in the decoder and in the tables and heads of the talker: whatever is drawn for
them is neither heard nor read. The layout's encoder cannot hold an analysis that is no convolution, so it is random.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor

from cli.checkpoint import official, safetensors_file, weights
from cli.checkpoint.layout import Shape, codec_tensors, model_tensors
from services.tts_lm.model.repertoire import FILE as REPERTOIRE_FILE
from tools.mini_voice import vocabulary
from tools.mini_voice.codebooks import Codebooks
from tools.mini_voice.dimensions import CODEBOOK_COUNT, USED_CODEBOOKS, Config, control_id, model_and_codec_config
from tools.mini_voice.repertoire import repertoire

GENERATION: Config = official.GENERATION_CONFIG | {
    "repetition_penalty": 1.0,
    "temperature": 0.5,
    "top_k": 8,
    "subtalker_dosample": False,
    "max_new_tokens": 2048,
}
"""The synthesiser says a sentence in one way, so little is left to chance; sounds return, so none is punished."""

Tensors = Mapping[str, Tensor]


ANALYSIS_FILE = "analysis.npz"
"""Which code a sound is: no service reads it; whoever trains the voice further must."""


def export(directory: Path, talker: Tensors, decoder: Tensors, books: Codebooks, tokenizer: Tokenizer) -> None:
    """`talker` and `decoder` by the names of the networks."""
    model, codec = model_and_codec_config()
    speech_tokenizer = directory / "speech_tokenizer"
    speech_tokenizer.mkdir(parents=True, exist_ok=True)
    for path, value in (
        (directory / "config.json", model),
        (directory / "generation_config.json", GENERATION),
        (directory / "preprocessor_config.json", official.PREPROCESSOR_CONFIG),
        (directory / REPERTOIRE_FILE, repertoire()),
        (speech_tokenizer / "config.json", codec),
        (speech_tokenizer / "configuration.json", official.CODEC_CONFIGURATION),
        (speech_tokenizer / "preprocessor_config.json", official.CODEC_PREPROCESSOR_CONFIG),
    ):
        path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
    vocabulary.save(tokenizer, directory)
    books.save_analysis(directory / ANALYSIS_FILE)
    _write(directory / "model.safetensors", model_tensors(model), _model_values(talker), "BF16")
    _write(
        speech_tokenizer / "model.safetensors",
        codec_tensors(codec),
        _codec_values(decoder, books.scaled_entries()),
        "F32",
    )


def _model_values(talker: Tensors) -> dict[str, Tensor]:
    values = {name: tensor for name, tensor in talker.items() if name.startswith("talker.")}
    prefix = "talker.code_predictor"
    for part in ("model.codec_embedding", "lm_head"):
        used = values[f"{prefix}.{part}.0.weight"]
        for book in range(USED_CODEBOOKS - 1, CODEBOOK_COUNT - 1):
            values[f"{prefix}.{part}.{book}.weight"] = torch.zeros_like(used)
    return values


def _codec_values(decoder: Tensors, entries: Tensor) -> dict[str, Tensor]:
    values = {f"decoder.{name}": tensor for name, tensor in decoder.items()}
    width = entries.shape[2]
    onto = torch.cat([torch.eye(width), torch.zeros(width, width)])[:, :, None]
    for branch, books in (("rvq_first", entries[:1]), ("rvq_rest", entries[1:])):
        prefix = f"decoder.quantizer.{branch}"
        values[f"{prefix}.input_proj.weight"] = onto.transpose(0, 1).contiguous()
        values[f"{prefix}.output_proj.weight"] = onto
        for index, book in enumerate(books):
            values[f"{prefix}.vq.layers.{index}._codebook.embedding_sum"] = book
            values[f"{prefix}.vq.layers.{index}._codebook.cluster_usage"] = torch.ones(len(book))
    return values


def _write(path: Path, shapes: Mapping[str, Shape], values: Tensors, dtype: safetensors_file.DType) -> None:
    """Every shape of the layout from `values`, the encoder from chance; ValueError for what fits nowhere."""
    surplus = sorted(values.keys() - shapes.keys())
    wrong = [name for name, tensor in values.items() if name in shapes and tuple(tensor.shape) != shapes[name]]
    missing = [name for name in shapes if name not in values and not name.startswith("encoder.")]
    if surplus or wrong or missing:
        raise ValueError(f"surplus {surplus[:3]}, misshapen {wrong[:3]}, missing {missing[:3]}")
    chance = weights.values(0, control_id("codec_eos_token_id"))

    def fill(name: str, shape: Shape) -> Iterator[weights.Array]:
        if name not in values:
            yield from chance(name, shape)
        else:
            yield np.ascontiguousarray(values[name].detach().cpu().to(torch.float32).numpy())

    safetensors_file.write(path, shapes, dtype, fill, {"format": "pt"} if dtype == "BF16" else None)
