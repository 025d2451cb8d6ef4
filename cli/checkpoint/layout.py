"""Every tensor of a checkpoint, name → shape, from its two configuration files.

Source: model document 9.1 and 9.2 (qwen-tts 0.1.1). The published parameter counts, tensor counts and file sizes follow
from these tables to the byte; tests/cli/test_layout.py holds them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

Shape = tuple[int, ...]
Shapes = dict[str, Shape]
Entries = Iterator[tuple[str, Shape]]

SPEAKER_ENCODER_DEFAULTS: Mapping[str, Any] = {
    "mel_dim": 128,
    "enc_channels": [512, 512, 512, 512, 1536],
    "enc_kernel_sizes": [5, 3, 3, 3, 1],
    "enc_attention_channels": 128,
    "enc_res2net_scale": 8,
    "enc_se_channels": 128,
}
"""The class defaults of the reference: the published config.json states enc_dim and sample_rate only."""

MODEL_PARTS: Mapping[str, tuple[str, ...]] = {
    "text_embedding": ("talker.model.text_embedding.",),
    "text_projection": ("talker.text_projection.",),
    "talker layers": ("talker.model.layers.", "talker.model.norm."),
    "codec_embedding and codec_head": ("talker.model.codec_embedding.", "talker.codec_head."),
    "code predictor layers": ("talker.code_predictor.model.layers.", "talker.code_predictor.model.norm."),
    "code predictor embeddings": ("talker.code_predictor.model.codec_embedding.",),
    "code predictor heads": ("talker.code_predictor.lm_head.",),
    "code predictor projection": ("talker.code_predictor.small_to_mtp_projection.",),
    "speaker encoder": ("speaker_encoder.",),
}
CODEC_PARTS: Mapping[str, tuple[str, ...]] = {"codec decoder": ("decoder.",), "codec encoder": ("encoder.",)}


def model_tensors(config: Mapping[str, Any]) -> Shapes:
    """model.safetensors as config.json describes it; small_to_mtp_projection only where the hidden sizes differ."""
    talker = config["talker_config"]
    entries = list(_talker(talker))
    entries += _code_predictor(talker)
    if config["tts_model_type"] == "base":
        entries += _speaker_encoder(SPEAKER_ENCODER_DEFAULTS | config["speaker_encoder_config"])
    return dict(sorted(entries))


def codec_tensors(config: Mapping[str, Any]) -> Shapes:
    """speech_tokenizer/model.safetensors as speech_tokenizer/config.json describes it."""
    return dict(sorted([*_codec_decoder(config["decoder_config"]), *_codec_encoder(config["encoder_config"])]))


def parameter_count(shapes: Iterable[Shape]) -> int:
    return sum(math.prod(shape) for shape in shapes)


def parameters_by_part(shapes: Mapping[str, Shape], parts: Mapping[str, tuple[str, ...]]) -> dict[str, int]:
    """Parameters of each part that has any; a name outside every part is not counted."""
    counts = {part: parameter_count(s for n, s in shapes.items() if n.startswith(p)) for part, p in parts.items()}
    return {part: count for part, count in counts.items() if count}


def _talker(c: Mapping[str, Any]) -> Entries:
    hidden, text = c["hidden_size"], c["text_hidden_size"]
    yield "talker.model.text_embedding.weight", (c["text_vocab_size"], text)
    yield from _affine("talker.text_projection.linear_fc1", (text, text))
    yield from _affine("talker.text_projection.linear_fc2", (hidden, text))
    yield "talker.model.codec_embedding.weight", (c["vocab_size"], hidden)
    yield from _qwen3_layers("talker.model", c)
    yield "talker.codec_head.weight", (c["vocab_size"], hidden)


def _code_predictor(talker: Mapping[str, Any]) -> Entries:
    c, outer = talker["code_predictor_config"], talker["hidden_size"]
    prefix = "talker.code_predictor"
    yield from _qwen3_layers(f"{prefix}.model", c)
    for i in range(talker["num_code_groups"] - 1):
        yield f"{prefix}.model.codec_embedding.{i}.weight", (c["vocab_size"], outer)
        yield f"{prefix}.lm_head.{i}.weight", (c["vocab_size"], c["hidden_size"])
    if c["hidden_size"] != outer:
        yield from _affine(f"{prefix}.small_to_mtp_projection", (c["hidden_size"], outer))


def _qwen3_layers(prefix: str, c: Mapping[str, Any]) -> Entries:
    hidden, ffn, head = c["hidden_size"], c["intermediate_size"], c["head_dim"]
    query, key = c["num_attention_heads"] * head, c["num_key_value_heads"] * head
    for i in range(c["num_hidden_layers"]):
        layer = f"{prefix}.layers.{i}"
        yield f"{layer}.self_attn.q_proj.weight", (query, hidden)
        yield f"{layer}.self_attn.k_proj.weight", (key, hidden)
        yield f"{layer}.self_attn.v_proj.weight", (key, hidden)
        yield f"{layer}.self_attn.o_proj.weight", (hidden, query)
        yield f"{layer}.self_attn.q_norm.weight", (head,)
        yield f"{layer}.self_attn.k_norm.weight", (head,)
        yield f"{layer}.input_layernorm.weight", (hidden,)
        yield f"{layer}.post_attention_layernorm.weight", (hidden,)
        yield from _swiglu(f"{layer}.mlp", hidden, ffn)
    yield f"{prefix}.norm.weight", (hidden,)


def _speaker_encoder(c: Mapping[str, Any]) -> Entries:
    channels, kernels = c["enc_channels"], c["enc_kernel_sizes"]
    scale, squeeze, attention = c["enc_res2net_scale"], c["enc_se_channels"], c["enc_attention_channels"]
    yield from _affine("speaker_encoder.blocks.0.conv", (channels[0], c["mel_dim"], kernels[0]))
    for i in range(1, len(channels) - 1):
        block, width = f"speaker_encoder.blocks.{i}", channels[i]
        yield from _affine(f"{block}.tdnn1.conv", (width, channels[i - 1], 1))
        for j in range(scale - 1):
            yield from _affine(f"{block}.res2net_block.blocks.{j}.conv", (width // scale, width // scale, kernels[i]))
        yield from _affine(f"{block}.tdnn2.conv", (width, width, 1))
        yield from _affine(f"{block}.se_block.conv1", (squeeze, width, 1))
        yield from _affine(f"{block}.se_block.conv2", (width, squeeze, 1))
    last = channels[-1]
    yield from _affine("speaker_encoder.mfa.conv", (last, sum(channels[1:-1]), kernels[-1]))
    yield from _affine("speaker_encoder.asp.tdnn.conv", (attention, 3 * last, 1))
    yield from _affine("speaker_encoder.asp.conv", (last, attention, 1))
    yield from _affine("speaker_encoder.fc", (c["enc_dim"], 2 * last, 1))


def _codec_decoder(c: Mapping[str, Any]) -> Entries:
    width, latent, channels = c["codebook_dim"], c["latent_dim"], c["decoder_dim"]
    for branch, layers in (("rvq_first", 1), ("rvq_rest", c["num_quantizers"] - 1)):
        prefix = f"decoder.quantizer.{branch}"
        yield f"{prefix}.input_proj.weight", (width // 2, width, 1)
        yield f"{prefix}.output_proj.weight", (width, width // 2, 1)
        for i in range(layers):
            yield f"{prefix}.vq.layers.{i}._codebook.embedding_sum", (c["codebook_size"], width // 2)
            yield f"{prefix}.vq.layers.{i}._codebook.cluster_usage", (c["codebook_size"],)
    yield from _affine("decoder.pre_conv.conv", (latent, width, 3))
    yield from _codec_transformer(c)
    for i, ratio in enumerate(c["upsampling_ratios"]):
        yield from _upsample_stage(f"decoder.upsample.{i}", latent, ratio)
    yield from _affine("decoder.decoder.0.conv", (channels, latent, 7))
    for i, rate in enumerate(c["upsample_rates"], start=1):
        yield from _decoder_block(f"decoder.decoder.{i}.block", channels, rate)
        channels //= 2
    last = len(c["upsample_rates"]) + 1
    yield from _snake(f"decoder.decoder.{last}", channels)
    yield from _affine(f"decoder.decoder.{last + 1}.conv", (1, channels, 7))


def _codec_transformer(c: Mapping[str, Any]) -> Entries:
    hidden, attention = c["hidden_size"], c["num_attention_heads"] * c["head_dim"]
    key = c["num_key_value_heads"] * c["head_dim"]
    prefix = "decoder.pre_transformer"
    yield from _affine(f"{prefix}.input_proj", (hidden, c["latent_dim"]))
    yield from _affine(f"{prefix}.output_proj", (c["latent_dim"], hidden))
    yield f"{prefix}.norm.weight", (hidden,)
    for i in range(c["num_hidden_layers"]):
        layer = f"{prefix}.layers.{i}"
        yield f"{layer}.self_attn.q_proj.weight", (attention, hidden)
        yield f"{layer}.self_attn.k_proj.weight", (key, hidden)
        yield f"{layer}.self_attn.v_proj.weight", (key, hidden)
        yield f"{layer}.self_attn.o_proj.weight", (hidden, attention)
        yield f"{layer}.self_attn_layer_scale.scale", (hidden,)
        yield f"{layer}.mlp_layer_scale.scale", (hidden,)
        yield f"{layer}.input_layernorm.weight", (hidden,)
        yield f"{layer}.post_attention_layernorm.weight", (hidden,)
        yield from _swiglu(f"{layer}.mlp", hidden, c["intermediate_size"])


def _upsample_stage(prefix: str, width: int, ratio: int) -> Entries:
    yield from _affine(f"{prefix}.0.conv", (width, width, ratio))
    yield from _affine(f"{prefix}.1.dwconv.conv", (width, 1, 7))
    yield from _affine(f"{prefix}.1.norm", (width,))
    yield from _affine(f"{prefix}.1.pwconv1", (4 * width, width))
    yield from _affine(f"{prefix}.1.pwconv2", (width, 4 * width))
    yield f"{prefix}.1.gamma", (width,)


def _decoder_block(prefix: str, channels: int, rate: int) -> Entries:
    out = channels // 2
    yield from _snake(f"{prefix}.0", channels)
    yield f"{prefix}.1.conv.weight", (channels, out, 2 * rate)  # ConvTranspose: in x out x kernel
    yield f"{prefix}.1.conv.bias", (out,)
    for i in (2, 3, 4):
        yield from _snake(f"{prefix}.{i}.act1", out)
        yield from _affine(f"{prefix}.{i}.conv1.conv", (out, out, 7))
        yield from _snake(f"{prefix}.{i}.act2", out)
        yield from _affine(f"{prefix}.{i}.conv2.conv", (out, out, 1))


def _codec_encoder(c: Mapping[str, Any]) -> Entries:
    filters, hidden, index = c["num_filters"], c["hidden_size"], 0
    prefix = "encoder.encoder.layers"
    yield from _affine(f"{prefix}.0.conv", (filters, c["audio_channels"], c["kernel_size"]))
    for ratio in reversed(c["upsampling_ratios"]):
        squeezed = filters // c["compress"]
        yield from _affine(f"{prefix}.{index + 1}.block.1.conv", (squeezed, filters, c["residual_kernel_size"]))
        yield from _affine(f"{prefix}.{index + 1}.block.3.conv", (filters, squeezed, 1))
        yield from _affine(f"{prefix}.{index + 3}.conv", (2 * filters, filters, 2 * ratio))
        filters, index = 2 * filters, index + 3
    yield from _affine(f"{prefix}.{index + 2}.conv", (hidden, filters, c["last_kernel_size"]))
    yield from _mimi_layers("encoder.encoder_transformer", c)
    yield "encoder.downsample.conv.weight", (hidden, hidden, 4)
    semantic = c["num_semantic_quantizers"]
    yield from _mimi_quantizer("semantic", semantic, c)
    yield from _mimi_quantizer("acoustic", c["num_quantizers"] - semantic, c)


def _mimi_layers(prefix: str, c: Mapping[str, Any]) -> Entries:
    hidden, head = c["hidden_size"], c["head_dim"]
    query, key = c["num_attention_heads"] * head, c["num_key_value_heads"] * head
    for i in range(c["num_hidden_layers"]):
        layer = f"{prefix}.layers.{i}"
        yield from _affine(f"{layer}.input_layernorm", (hidden,))
        yield from _affine(f"{layer}.post_attention_layernorm", (hidden,))
        yield f"{layer}.self_attn.q_proj.weight", (query, hidden)
        yield f"{layer}.self_attn.k_proj.weight", (key, hidden)
        yield f"{layer}.self_attn.v_proj.weight", (key, hidden)
        yield f"{layer}.self_attn.o_proj.weight", (hidden, query)
        yield f"{layer}.mlp.fc1.weight", (c["intermediate_size"], hidden)
        yield f"{layer}.mlp.fc2.weight", (hidden, c["intermediate_size"])
        yield f"{layer}.self_attn_layer_scale.scale", (hidden,)
        yield f"{layer}.mlp_layer_scale.scale", (hidden,)


def _mimi_quantizer(branch: str, layers: int, c: Mapping[str, Any]) -> Entries:
    prefix = f"encoder.quantizer.{branch}_residual_vector_quantizer"
    inner = c["vector_quantization_hidden_dimension"]
    yield f"{prefix}.input_proj.weight", (inner, c["hidden_size"], 1)
    yield f"{prefix}.output_proj.weight", (c["hidden_size"], inner, 1)
    for i in range(layers):
        yield f"{prefix}.layers.{i}.codebook.embed_sum", (c["codebook_size"], c["codebook_dim"])
        yield f"{prefix}.layers.{i}.codebook.cluster_usage", (c["codebook_size"],)
        yield f"{prefix}.layers.{i}.codebook.initialized", (1,)


def _affine(name: str, weight: Shape) -> Entries:
    yield f"{name}.weight", weight
    yield f"{name}.bias", (weight[0],)


def _swiglu(name: str, hidden: int, ffn: int) -> Entries:
    yield f"{name}.gate_proj.weight", (ffn, hidden)
    yield f"{name}.up_proj.weight", (ffn, hidden)
    yield f"{name}.down_proj.weight", (hidden, ffn)


def _snake(name: str, channels: int) -> Entries:
    yield f"{name}.alpha", (channels,)
    yield f"{name}.beta", (channels,)
