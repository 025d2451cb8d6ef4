"""Tiny checkpoints made on the spot: a Qwen3 and a Qwen3-Omni thinker, with random weights or as a chain.

A *chain* answers with known tokens: attention and MLPs add nothing to one-hot embeddings, and the head maps each token
to its successor. So a test knows every token of the answer, can have tools called, and still runs the real model code.
Needs torch, transformers and tokenizers only, so vLLM's environment can use it too.
"""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

SPECIAL = (
    "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|audio_start|>", "<|audio_end|>", "<|audio_pad|>", "<|image_pad|>",
    "<|video_pad|>", "<|vision_start|>", "<|vision_end|>", "<|after_tool|>", "<|with_tools|>",
)  # fmt: skip
SPEECH = tuple(f" w{index}" for index in range(60))
"""Ordinary tokens of the chain's answer."""
CALL = '{"name": "clock", "arguments": {"zone": "UTC"}}'
PLAIN = ("<tool_call>", "</tool_call>", CALL, *SPEECH)
ANSWER = "".join(SPEECH[:30]) + " 你" + "".join(SPEECH[30:])
"""What the chain says to everything; the Chinese character is three tokens."""
AFTER_TOOL = SPEECH[50:]
"""What it says once a tool has answered: the end of its answer."""

TEMPLATE = """\
{%- if tools %}<|im_start|>system
{{ tools | tojson }}<|im_end|>
{% endif %}
{%- for message in messages %}<|im_start|>{{ message.role }}
{% if message.content is string %}{{ message.content }}{% else %}{% for part in message.content %}
{%- if part.type == 'audio' %}<|audio_start|><|audio_pad|><|audio_end|>{% else %}{{ part.text }}{% endif %}
{%- endfor %}{% endif %}
{%- for call in message.tool_calls or [] %}<tool_call>{{ call.function | tojson }}</tool_call>{% endfor %}<|im_end|>
{% endfor %}
{%- if add_generation_prompt %}<|im_start|>assistant
{% if messages[-1].role == 'tool' %}<|after_tool|>{% elif tools %}<|with_tools|>{% endif %}{% endif %}"""


def tokenizer_files(directory: Path) -> Tokenizer:
    """A byte-level BPE in Qwen's layout: bytes, a few merges, then the special tokens; returns it."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=300, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(["the person says hello and the assistant says hello"] * 8, trainer)
    tokenizer.add_special_tokens(list(SPECIAL))
    tokenizer.add_tokens([AddedToken(word, special=False, normalized=False) for word in PLAIN])
    tokenizer.save(str(directory / "tokenizer.json"))
    names = {
        "image_token": "<|image_pad|>", "audio_token": "<|audio_pad|>", "video_token": "<|video_pad|>",
        "vision_bos_token": "<|vision_start|>", "vision_eos_token": "<|vision_end|>",
        "audio_bos_token": "<|audio_start|>", "audio_eos_token": "<|audio_end|>",
    }  # fmt: skip
    settings = {
        "tokenizer_class": "Qwen2TokenizerFast", "eos_token": "<|im_end|>", "pad_token": "<|endoftext|>",
        "model_max_length": 131072, "extra_special_tokens": names, "chat_template": TEMPLATE,
    }  # fmt: skip
    (directory / "tokenizer_config.json").write_text(json.dumps(settings))
    return tokenizer


def chain_of(tokenizer: Tokenizer) -> dict[int, int]:
    """Each token's successor: a reply after the prompt, a call where there are tools, the rest after a result."""
    ids = lambda text: tokenizer.encode(text, add_special_tokens=False).ids  # noqa: E731
    newline, end = ids("\n")[-1], ids("<|im_end|>")[0]
    (tools,), (after,) = ids("<|with_tools|>"), ids("<|after_tool|>")
    answer = ids(ANSWER)
    assert len(set(answer)) == len(answer), "a chain needs every token once"
    call = ids(f"<tool_call>{CALL}</tool_call>")
    assert len(call) == 3
    chain: dict[int, int] = {}
    for run in ([newline, *answer, end], [tools, *call, end], [after, ids(AFTER_TOOL[0])[0]]):
        chain.update(itertools.pairwise(run))
    return chain


def make_chain(model: torch.nn.Module, head: torch.nn.Module, embed: torch.nn.Module, chain: dict[int, int]) -> None:
    """Turn random weights into a chain."""
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if name.endswith(("o_proj.weight", "down_proj.weight", "experts.down_proj")):
                weight.zero_()
        embed.weight.copy_(torch.eye(*embed.weight.shape))
        head.weight.zero_()
        for token, follower in chain.items():
            head.weight[follower, token] = 10.0


def _size(tokenizer: Tokenizer) -> int:
    return -(-tokenizer.get_vocab_size() // 32) * 32


def write_qwen3(directory: Path, chain: bool = False, seed: int = 0) -> Path:
    """A text model of two layers."""
    from transformers import Qwen3Config, Qwen3ForCausalLM

    tokenizer = _prepare(directory)
    size = _size(tokenizer)
    config = Qwen3Config(
        vocab_size=size, hidden_size=size if chain else 64, intermediate_size=128, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, head_dim=32, max_position_embeddings=8192,
        tie_word_embeddings=False, eos_token_id=tokenizer.token_to_id("<|im_end|>"), bos_token_id=None,
        pad_token_id=tokenizer.token_to_id("<|endoftext|>"),
    )  # fmt: skip
    torch.manual_seed(seed)
    model = Qwen3ForCausalLM(config)
    if chain:
        make_chain(model, model.lm_head, model.model.embed_tokens, chain_of(tokenizer))
    model.save_pretrained(directory)
    return _generation(directory, tokenizer)


def write_qwen3_omni(directory: Path, chain: bool = False, seed: int = 0) -> Path:
    """A thinker with an audio encoder, two layers and four experts, in the layout of the official checkpoint."""
    from transformers import Qwen3OmniMoeConfig, Qwen3OmniMoeForConditionalGeneration

    tokenizer = _prepare(directory)
    config = Qwen3OmniMoeConfig(thinker_config=_thinker(tokenizer, chain), enable_audio_output=False)
    torch.manual_seed(seed)
    model = Qwen3OmniMoeForConditionalGeneration(config)
    if chain:
        thinker = model.thinker
        make_chain(thinker.model, thinker.lm_head, thinker.model.embed_tokens, chain_of(tokenizer))
    else:
        with torch.no_grad():  # freshly made, an encoder says the same to all sounds
            for weight in model.thinker.audio_tower.parameters():
                weight.mul_(10 if weight.dim() > 1 else 1)
    model.save_pretrained(directory)
    written = json.loads((directory / "config.json").read_text())
    written["thinker_config"]["vision_config"] |= {
        "image_size": 32, "spatial_patch_size": 16, "apply_vit_abs_pos_embed": True, "tokens_per_second": 2,
    }  # fmt: skip
    written["thinker_config"]["text_config"] |= {
        "tie_word_embeddings": False, "use_qk_norm": True, "use_sliding_window": False,
        "shared_expert_intermediate_size": 0, "decoder_sparse_step": 1, "norm_topk_prob": True,
    }  # fmt: skip
    (directory / "config.json").write_text(json.dumps(written))
    (directory / "preprocessor_config.json").write_text(json.dumps(_PREPROCESSOR))
    (directory / "chat_template.json").write_text(json.dumps({"chat_template": TEMPLATE}))
    return _generation(directory, tokenizer)


_PREPROCESSOR: dict[str, Any] = {
    "feature_extractor_type": "WhisperFeatureExtractor", "feature_size": 128, "sampling_rate": 16000, "hop_length": 160,
    "chunk_length": 300, "n_samples": 4800000, "nb_max_frames": 30000, "n_fft": 400, "padding_side": "right",
    "padding_value": 0.0, "dither": 0.0, "return_attention_mask": True, "processor_class": "Qwen3OmniMoeProcessor",
    "image_processor_type": "Qwen2VLImageProcessor", "patch_size": 16, "temporal_patch_size": 2, "merge_size": 2,
    "min_pixels": 1024, "max_pixels": 65536, "image_mean": [0.5] * 3, "image_std": [0.5] * 3,
}  # fmt: skip


def _thinker(tokenizer: Tokenizer, chain: bool) -> dict[str, Any]:
    size = _size(tokenizer)
    hidden = size if chain else 64
    token = tokenizer.token_to_id
    return {
        "audio_config": {
            "d_model": 32, "encoder_layers": 2, "encoder_attention_heads": 2, "encoder_ffn_dim": 64,
            "output_dim": hidden, "num_mel_bins": 128, "downsample_hidden_size": 16, "n_window": 50,
            "n_window_infer": 800, "conv_chunksize": 500, "max_source_positions": 1500,
        },
        "vision_config": {
            "depth": 2, "hidden_size": 32, "intermediate_size": 64, "num_heads": 2, "out_hidden_size": hidden,
            "patch_size": 16, "spatial_merge_size": 2, "temporal_patch_size": 2, "num_position_embeddings": 4,
            "deepstack_visual_indexes": [0, 1],
        },
        "text_config": {
            "vocab_size": size, "hidden_size": hidden, "intermediate_size": 64, "moe_intermediate_size": 32,
            "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 32,
            "num_experts": 4, "num_experts_per_tok": 2, "max_position_embeddings": 8192,
            "tie_word_embeddings": False, "rope_parameters": {
                "rope_type": "default", "rope_theta": 1000000.0, "mrope_section": [4, 6, 6], "mrope_interleaved": True,
            },
        },
        "audio_token_id": token("<|audio_pad|>"), "image_token_id": token("<|image_pad|>"),
        "video_token_id": token("<|video_pad|>"), "audio_start_token_id": token("<|audio_start|>"),
        "audio_end_token_id": token("<|audio_end|>"), "vision_start_token_id": token("<|vision_start|>"),
        "vision_end_token_id": token("<|vision_end|>"), "position_id_per_seconds": 13, "user_token_id": 0,
    }  # fmt: skip


def _prepare(directory: Path) -> Tokenizer:
    directory.mkdir(parents=True, exist_ok=True)
    return tokenizer_files(directory)


def _generation(directory: Path, tokenizer: Tokenizer) -> Path:
    token = tokenizer.token_to_id
    values = {"eos_token_id": [token("<|im_end|>")], "pad_token_id": token("<|endoftext|>"), "do_sample": True}
    (directory / "generation_config.json").write_text(json.dumps(values | {"temperature": 0.7, "top_p": 0.8}))
    return directory
