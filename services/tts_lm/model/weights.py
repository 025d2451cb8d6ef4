"""Checkpoint names → our names: every tensor of model.safetensors accounted for, fused where one product does the work.

Owns no arithmetic but exact upcasting and concatenation. Source: model document 9.1.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from services.tts_lm.model.checkpoint import TensorFiles, weight_files
from services.tts_lm.model.config import BlockConfig, ModelConfig
from services.tts_lm.model.matrix import Int8Matrix, Matrix, quantised

IGNORED = ("speaker_encoder.",)
"""The speaker encoder of a Base model is the codec service's: it turns reference audio into the vector we are given."""


@dataclass(frozen=True)
class LayerWeights:
    """One Qwen3 layer. H hidden, A all query heads, K all kv heads, F feed-forward, h heads of all three kinds."""

    attention_norm: Tensor  # [H]
    qkv: Matrix  # [A + 2K, H]
    qk_norm: Tensor  # [query heads + kv heads, head size]
    output: Matrix  # [H, A]
    mlp_norm: Tensor  # [H]
    gate_up: Matrix  # [2F, H]
    down: Matrix  # [H, F]


@dataclass(frozen=True)
class StackWeights:
    """A stack of layers and the norm after the last one."""

    layers: tuple[LayerWeights, ...]
    norm: Tensor


@dataclass(frozen=True)
class ModelWeights:
    """The talker and the code predictor. Q codebooks, V codes per acoustic codebook, C codec vocabulary."""

    text_embedding: Tensor  # [text vocabulary, text hidden], in the stored dtype: rows are upcast when looked up
    text_fc1: tuple[Tensor, Tensor]
    text_fc2: tuple[Tensor, Tensor]
    frame_table: Tensor  # [C + (Q-1)·V, H]: codec_embedding, then the acoustic tables
    talker: StackWeights
    codec_head: Tensor  # [C, H]
    predictor: StackWeights
    predictor_heads: tuple[Tensor, ...]  # Q-1 of [V, predictor hidden]
    predictor_input: tuple[Tensor, Tensor] | None  # small_to_mtp_projection; None is the identity

    def byte_count(self) -> int:
        """Memory of all tensors."""
        return sum(t.numel() * t.element_size() for t in _tensors(self))


def load_model_weights(directory: Path, config: ModelConfig, dtype: str, device: torch.device) -> ModelWeights:
    """`load_weights` for a dtype by name; int8 is bfloat16 with int8 layers."""
    if dtype == "int8":
        return with_int8_layers(load_weights(directory, config, torch.bfloat16, device))
    return load_weights(directory, config, getattr(torch, dtype), device)


def with_int8_layers(weights: ModelWeights) -> ModelWeights:
    """The layers' products in int8, layer by layer, so that memory peaks at the model plus one layer.

    Heads, tables and the text's projection stay as they are: 5 % of a frame's bytes, and the nearest to what is heard.
    """

    def narrowed(stack: StackWeights) -> StackWeights:
        return StackWeights(tuple(_int8_layer(layer) for layer in stack.layers), stack.norm)

    return replace(weights, talker=narrowed(weights.talker), predictor=narrowed(weights.predictor))


def _int8_layer(layer: LayerWeights) -> LayerWeights:
    def narrowed(matrix: Matrix) -> Matrix:
        return matrix if isinstance(matrix, Int8Matrix) else quantised(matrix)

    return replace(
        layer,
        qkv=narrowed(layer.qkv),
        output=narrowed(layer.output),
        gate_up=narrowed(layer.gate_up),
        down=narrowed(layer.down),
    )


def load_weights(directory: Path, config: ModelConfig, dtype: torch.dtype, device: torch.device) -> ModelWeights:
    """Read every tensor; raises `CheckpointError` naming what is missing, surplus, misshapen, truncated or corrupt."""
    files = TensorFiles(weight_files(directory))
    shapes = expected_shapes(config)
    files.check(shapes, IGNORED)
    loaded: dict[str, Tensor] = {}
    for name, tensor in files.read(sorted(shapes)):
        keep = name == "talker.model.text_embedding.weight" and tensor.element_size() <= dtype.itemsize
        loaded[name] = tensor.to(device=device, dtype=None if keep else dtype)
    return _assemble(loaded, config)


def expected_shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Names and shapes that `config` implies, the speaker encoder left out."""
    hidden, text = config.talker.hidden_size, config.text_hidden_size
    inner, codes = config.predictor.hidden_size, config.codebook_size
    shapes: dict[str, tuple[int, ...]] = {
        "talker.model.text_embedding.weight": (config.text_vocab_size, text),
        "talker.text_projection.linear_fc1.weight": (text, text),
        "talker.text_projection.linear_fc1.bias": (text,),
        "talker.text_projection.linear_fc2.weight": (hidden, text),
        "talker.text_projection.linear_fc2.bias": (hidden,),
        "talker.model.codec_embedding.weight": (config.codec_vocab_size, hidden),
        "talker.codec_head.weight": (config.codec_vocab_size, hidden),
    }
    shapes |= _stack_shapes("talker.model", config.talker)
    shapes |= _stack_shapes("talker.code_predictor.model", config.predictor)
    for i in range(config.codebook_count - 1):
        shapes[f"talker.code_predictor.model.codec_embedding.{i}.weight"] = (codes, hidden)
        shapes[f"talker.code_predictor.lm_head.{i}.weight"] = (codes, inner)
    if inner != hidden:
        shapes["talker.code_predictor.small_to_mtp_projection.weight"] = (inner, hidden)
        shapes["talker.code_predictor.small_to_mtp_projection.bias"] = (inner,)
    return shapes


def _stack_shapes(prefix: str, block: BlockConfig) -> dict[str, tuple[int, ...]]:
    hidden, ffn, head = block.hidden_size, block.intermediate_size, block.head_size
    queries, keys = block.head_count * head, block.kv_head_count * head
    per_layer = {
        "self_attn.q_proj": (queries, hidden),
        "self_attn.k_proj": (keys, hidden),
        "self_attn.v_proj": (keys, hidden),
        "self_attn.o_proj": (hidden, queries),
        "self_attn.q_norm": (head,),
        "self_attn.k_norm": (head,),
        "input_layernorm": (hidden,),
        "post_attention_layernorm": (hidden,),
        "mlp.gate_proj": (ffn, hidden),
        "mlp.up_proj": (ffn, hidden),
        "mlp.down_proj": (hidden, ffn),
    }
    shapes: dict[str, tuple[int, ...]] = {
        f"{prefix}.layers.{i}.{name}.weight": shape
        for i in range(block.layer_count)
        for name, shape in per_layer.items()
    }
    shapes[f"{prefix}.norm.weight"] = (hidden,)
    return shapes


def _assemble(loaded: dict[str, Tensor], config: ModelConfig) -> ModelWeights:
    """Fuse while dropping the parts, so that memory peaks at the model plus one layer."""
    acoustic = range(config.codebook_count - 1)
    take = loaded.pop
    projection = None
    if config.predictor.hidden_size != config.talker.hidden_size:
        name = "talker.code_predictor.small_to_mtp_projection"
        projection = (take(f"{name}.weight"), take(f"{name}.bias"))
    tables = [take("talker.model.codec_embedding.weight")]
    tables += [take(f"talker.code_predictor.model.codec_embedding.{i}.weight") for i in acoustic]
    text = "talker.text_projection.linear_fc"
    weights = ModelWeights(
        text_embedding=take("talker.model.text_embedding.weight"),
        text_fc1=(take(f"{text}1.weight"), take(f"{text}1.bias")),
        text_fc2=(take(f"{text}2.weight"), take(f"{text}2.bias")),
        frame_table=torch.cat(tables),
        talker=_stack(loaded, "talker.model", config.talker),
        codec_head=take("talker.codec_head.weight"),
        predictor=_stack(loaded, "talker.code_predictor.model", config.predictor),
        predictor_heads=tuple(take(f"talker.code_predictor.lm_head.{i}.weight") for i in acoustic),
        predictor_input=projection,
    )
    assert not loaded, f"read but never used: {sorted(loaded)}"
    return weights


def _stack(loaded: dict[str, Tensor], prefix: str, block: BlockConfig) -> StackWeights:
    layers = tuple(_layer(loaded, f"{prefix}.layers.{i}", block) for i in range(block.layer_count))
    return StackWeights(layers, loaded.pop(f"{prefix}.norm.weight"))


def _layer(loaded: dict[str, Tensor], prefix: str, block: BlockConfig) -> LayerWeights:
    def take(name: str) -> Tensor:
        return loaded.pop(f"{prefix}.{name}.weight")

    query_norm = take("self_attn.q_norm").expand(block.head_count, -1)
    key_norm = take("self_attn.k_norm").expand(block.kv_head_count, -1)
    return LayerWeights(
        attention_norm=take("input_layernorm"),
        qkv=torch.cat([take(f"self_attn.{name}_proj") for name in "qkv"]),
        qk_norm=torch.cat([query_norm, key_norm]),
        output=take("self_attn.o_proj"),
        mlp_norm=take("post_attention_layernorm"),
        gate_up=torch.cat([take("mlp.gate_proj"), take("mlp.up_proj")]),
        down=take("mlp.down_proj"),
    )


def _tensors(weights: ModelWeights) -> list[Tensor]:
    stacks = [weights.talker, weights.predictor]
    parts = [t for stack in stacks for layer in stack.layers for t in vars(layer).values()]
    tensors = [t for part in parts for t in ((part.values, part.scales) if isinstance(part, Int8Matrix) else (part,))]
    tensors += [stack.norm for stack in stacks]
    tensors += [weights.text_embedding, *weights.text_fc1, *weights.text_fc2, weights.frame_table, weights.codec_head]
    return [*tensors, *weights.predictor_heads, *(weights.predictor_input or ())]
