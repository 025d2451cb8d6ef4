"""Talker and code predictor as a trainable network: names are the official tensor names, so a state dict exports as is.

Whole sequences, right-padded; what streams is services/tts_lm. Beside the codes it can report what two heads look at
and what a middle layer knows, which training supervises and inference never sees. Source: model document section 3.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tools.mini_voice.codec_net import FeedForward, rotary, rotate
from tools.mini_voice.dimensions import USED_CODEBOOKS

GUIDED_LAYERS = (2, 3)
GUIDED_HEADS = (0, 2)
"""The first looks at the token being spoken, the second at what comes next."""
PHONE_LAYER = 3


@dataclass(frozen=True)
class Heard:
    """`hidden` [B, T, H] after the last norm, `middle` [B, T, H]; `looks` log attention [B, 2, T, T] per layer."""

    hidden: Tensor
    middle: Tensor
    looks: list[Tensor]


class Attention(nn.Module):
    def __init__(self, c: dict[str, Any]) -> None:
        super().__init__()
        hidden, self.head_dim = c["hidden_size"], c["head_dim"]
        self.heads, self.kv_heads = c["num_attention_heads"], c["num_key_value_heads"]
        self.q_proj = nn.Linear(hidden, self.heads * self.head_dim, bias=False)
        self.k_proj = nn.Linear(hidden, self.kv_heads * self.head_dim, bias=False)
        self.v_proj = nn.Linear(hidden, self.kv_heads * self.head_dim, bias=False)
        self.o_proj = nn.Linear(self.heads * self.head_dim, hidden, bias=False)
        self.q_norm = nn.RMSNorm(self.head_dim, c["rms_norm_eps"])
        self.k_norm = nn.RMSNorm(self.head_dim, c["rms_norm_eps"])

    def forward(self, x: Tensor, angles: tuple[Tensor, Tensor], guided: bool) -> tuple[Tensor, Tensor | None]:
        batch, length, _ = x.shape
        q = self.q_norm(self.q_proj(x).view(batch, length, self.heads, self.head_dim).float()).transpose(1, 2)
        k = self.k_norm(self.k_proj(x).view(batch, length, self.kv_heads, self.head_dim).float()).transpose(1, 2)
        v = self.v_proj(x).view(batch, length, self.kv_heads, self.head_dim).transpose(1, 2)
        group = self.heads // self.kv_heads
        q, k = rotate(q, angles).to(v), rotate(k, angles).to(v).repeat_interleave(group, dim=1)
        out = F.scaled_dot_product_attention(q, k, v.repeat_interleave(group, dim=1), is_causal=True)
        look = _look(q[:, GUIDED_HEADS], k[:, GUIDED_HEADS]) if guided else None
        return self.o_proj(out.transpose(1, 2).flatten(2)), look


def _look(q: Tensor, k: Tensor) -> Tensor:
    scores = q @ k.transpose(2, 3) / q.shape[-1] ** 0.5
    hidden = torch.ones(scores.shape[-2:], dtype=torch.bool, device=q.device).triu(1)
    looks: Tensor = scores.masked_fill(hidden, float("-inf")).log_softmax(-1)
    return looks


class Layer(nn.Module):
    def __init__(self, c: dict[str, Any]) -> None:
        super().__init__()
        self.input_layernorm = nn.RMSNorm(c["hidden_size"], c["rms_norm_eps"])
        self.self_attn = Attention(c)
        self.post_attention_layernorm = nn.RMSNorm(c["hidden_size"], c["rms_norm_eps"])
        self.mlp = FeedForward(c["hidden_size"], c["intermediate_size"])

    def forward(self, x: Tensor, angles: tuple[Tensor, Tensor], guided: bool = False) -> tuple[Tensor, Tensor | None]:
        attended, look = self.self_attn(self.input_layernorm(x), angles, guided)
        x = x + attended
        return x + self.mlp(self.post_attention_layernorm(x)), look


class Stack(nn.Module):
    """Layers and the last norm; the embeddings live here too because the official names have them here."""

    def __init__(self, c: dict[str, Any]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(Layer(c) for _ in range(c["num_hidden_layers"]))
        self.norm = nn.RMSNorm(c["hidden_size"], c["rms_norm_eps"])
        self.head_dim, self.theta = c["head_dim"], float(c["rope_theta"])

    def angles(self, length: int, device: torch.device) -> tuple[Tensor, Tensor]:
        return rotary(torch.arange(length, device=device), self.head_dim, self.theta)


class TextProjection(nn.Module):
    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.linear_fc1, self.linear_fc2 = nn.Linear(width, width), nn.Linear(width, hidden)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.linear_fc2(F.silu(self.linear_fc1(x)))
        return y


class CodePredictor(nn.Module):
    """Only the books in use; the export adds the empty ones."""

    def __init__(self, talker: dict[str, Any]) -> None:
        super().__init__()
        c = talker["code_predictor_config"]
        assert c["hidden_size"] == talker["hidden_size"], "without small_to_mtp_projection the widths must agree"
        self.model = Stack(c)
        self.model.codec_embedding = nn.ModuleList(
            nn.Embedding(c["vocab_size"], talker["hidden_size"]) for _ in range(USED_CODEBOOKS - 1)
        )
        self.lm_head = nn.ModuleList(
            nn.Linear(c["hidden_size"], c["vocab_size"], bias=False) for _ in range(USED_CODEBOOKS - 1)
        )

    def tables(self) -> list[nn.Embedding]:
        """The embeddings of books 1 to used − 1."""
        return list(cast("nn.ModuleList", self.model.codec_embedding))  # type: ignore[arg-type]

    def run(self, rows: Tensor) -> Tensor:
        """rows [N, P, H], positions from 0 → [N, P, H]."""
        angles = self.model.angles(rows.shape[1], rows.device)
        for layer in self.model.layers:
            rows, _ = layer(rows, angles)
        out: Tensor = self.model.norm(rows)
        return out


class Talker(nn.Module):
    def __init__(self, c: dict[str, Any]) -> None:
        super().__init__()
        self.model = Stack(c)
        self.model.text_embedding = nn.Embedding(c["text_vocab_size"], c["text_hidden_size"])
        self.model.codec_embedding = nn.Embedding(c["vocab_size"], c["hidden_size"])
        self.text_projection = TextProjection(c["text_hidden_size"], c["hidden_size"])
        self.codec_head = nn.Linear(c["hidden_size"], c["vocab_size"], bias=False)
        self.code_predictor = CodePredictor(c)


class MiniTalker(nn.Module):
    """The talker under its official name, and the phoneme reader that only training uses."""

    def __init__(self, config: dict[str, Any], phone_count: int) -> None:
        super().__init__()
        c = config["talker_config"]
        self.talker = Talker(c)
        self.phone_reader = nn.Linear(c["hidden_size"], 2 * phone_count)
        self._initialise()

    def _initialise(self) -> None:
        for name, parameter in self.named_parameters():
            if "codec_embedding" in name:
                nn.init.normal_(parameter, std=0.3)
            elif "text_embedding" in name:
                nn.init.normal_(parameter, std=1.0)
            elif parameter.dim() == 2:
                gain = 0.3 if name.endswith(("o_proj.weight", "down_proj.weight")) else 1.0
                nn.init.normal_(parameter, std=gain * parameter.shape[1] ** -0.5)
                if "head" in name or "reader" in name:
                    nn.init.normal_(parameter, std=0.02)

    def rows(self, text: Tensor, codec: Tensor, codes: Tensor) -> Tensor:
        """text and codec [B, T], codes [B, T, used − 1]; ids below 0 add nothing → [B, T, H]."""
        stack, talker = self.talker.model, self.talker
        x: Tensor = talker.text_projection(cast(Any, stack).text_embedding(text)) + _looked_up(
            stack.codec_embedding, codec
        )
        for book, table in enumerate(talker.code_predictor.tables()):
            x = x + _looked_up(table, codes[..., book])
        return x

    def forward(self, rows: Tensor, guided: bool = False) -> Heard:
        stack = self.talker.model
        angles = stack.angles(rows.shape[1], rows.device)
        looks, x, middle = [], rows, rows
        for index, layer in enumerate(stack.layers):
            x, look = layer(x, angles, guided and index in GUIDED_LAYERS)
            if look is not None:
                looks.append(look)
            if index == PHONE_LAYER:
                middle = x
        return Heard(stack.norm(x), middle, looks)

    def residual_logits(self, hidden: Tensor, codes: Tensor) -> list[Tensor]:
        """Teacher-forced: hidden [N, H], codes [N, used] → logits of books 1 … used − 1, each [N, 512]."""
        predictor = self.talker.code_predictor
        inputs = [hidden, cast(Any, self.talker.model).codec_embedding(codes[:, 0])]
        tables = predictor.tables()
        inputs += [tables[i](codes[:, i + 1]) for i in range(USED_CODEBOOKS - 2)]
        out = predictor.run(torch.stack(inputs, 1))
        return [head(out[:, i + 1]) for i, head in enumerate(predictor.lm_head)]


def _looked_up(table: Any, ids: Tensor) -> Tensor:
    rows: Tensor = table(ids.clamp(min=0)) * (ids >= 0)[..., None]
    return rows
