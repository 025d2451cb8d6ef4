"""A small text tokenizer in the official files: Qwen2-style byte-level BPE, trained on the spot on our own sentences.

The files have the published structure: ordinary ids 0..N-1 dense in vocab.json, the special tokens right behind them
in tokenizer_config.json. In the real sizes N is 151643 as published, so the special tokens keep their real ids; the ids
the small training does not fill are entries that no merge can reach.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

from cli.checkpoint.official import REAL_ROLE_IDS, SPECIAL_TOKENS

PRE_TOKENIZER_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
"""Qwen2's (model document 4.6): BPE never crosses the pieces it makes."""

_ROLE_WORDS = ("assistant", "user", "system")
_CORPUS = (
    "Good morning. How are you today? I am fine, thank you, and how have you been since the last time we spoke?",
    "The train leaves at seven, so we should be at the station before half past six.",
    "I don't know what they've planned, but I'm sure it'll be something we haven't seen before.",
    "Please read this sentence aloud, slowly and clearly, with a short pause after every comma.",
    "She opened the window and listened to the rain falling on the roof of the little house.",
    "Numbers such as 3, 14, 159 and 2026 are read one digit at a time by the tokenizer.",
    "Hello world. Hello again, world! The weather is warm and the sky is blue.",
    "There is nothing more pleasant than talking with someone who really listens to you.",
    "Guten Morgen, wie geht es Ihnen? Das Wetter ist schön, und wir gehen später in die Stadt.",
    "Bonjour, je voudrais un café et une tarte aux pommes, s'il vous plaît.",
    "Buenos días, ¿cómo estás? Mañana vamos a la playa con toda la familia.",
    "Buongiorno, oggi è una bella giornata per parlare insieme.",
    "Bom dia, não sei onde está a estação, mas vamos perguntar.",
    "Доброе утро, как дела? Сегодня хорошая погода, и мы пойдём гулять.",
    "你好，今天天气很好，我们一起去公园吧。请你慢慢地说，我在听。",
    "早上好，很高兴认识你。你想喝茶还是喝咖啡？",
    "こんにちは、今日はいい天気ですね。ゆっくり話してください。",
    "안녕하세요, 오늘 날씨가 참 좋네요. 천천히 말씀해 주세요.",
    "Speak with a calm and friendly voice, a little faster than usual, as if telling a story to a child.",
    "one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen",
)


@cache
def train(ordinary_token_count: int) -> tuple[tuple[str, ...], tuple[tuple[str, str], ...]]:
    """Tokens in id order (at most `ordinary_token_count`) and merges in rank order; the same on every run."""
    from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    split = pre_tokenizers.Split(Regex(PRE_TOKENIZER_PATTERN), "isolated")
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, byte_level])
    trainer = trainers.BpeTrainer(
        vocab_size=ordinary_token_count,
        show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    # A role must be one token, as in the real vocabulary: the prompt's slices count on it.
    roles = [f"{role}\n" for role in _ROLE_WORDS for _ in range(100)]
    tokenizer.train_from_iterator([*roles, *_CORPUS], trainer)
    model = json.loads(tokenizer.to_str())["model"]
    return tuple(sorted(model["vocab"], key=model["vocab"].__getitem__)), tuple(map(_pair, model["merges"]))


def write_tokenizer(directory: Path, ordinary_token_count: int, trained_token_count: int) -> None:
    """vocab.json, merges.txt and tokenizer_config.json, special tokens from id `ordinary_token_count` on."""
    tokens, merges = train(trained_token_count)
    vocabulary = _with_fillers(tokens, ordinary_token_count)
    _write_json(directory / "vocab.json", vocabulary)
    lines = ["#version: 0.2", *(f"{left} {right}" for left, right in merges)]
    (directory / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    _write_json(directory / "tokenizer_config.json", _tokenizer_config(ordinary_token_count), indent=2)


def _with_fillers(tokens: tuple[str, ...], count: int) -> dict[str, int]:
    """Dense token → id over `count` ids; the role words take their real ids where the vocabulary is that long."""
    ids = dict(zip(tokens, range(len(tokens)), strict=True))
    real = {token: index for token, index in REAL_ROLE_IDS.items() if index < count}
    ids |= real
    by_id = {index: token for token, index in ids.items()}
    return {by_id.get(index, f"[unused{index}]"): index for index in range(count)}


def _tokenizer_config(first_special: int) -> dict[str, object]:
    added = {str(first_special + i): _added_token(token) for i, token in enumerate(SPECIAL_TOKENS)}
    return {
        "add_bos_token": False,
        "add_prefix_space": False,
        "added_tokens_decoder": added,
        "additional_special_tokens": [t for t in SPECIAL_TOKENS[1:] if _is_special(t)],
        "bos_token": None,
        "clean_up_tokenization_spaces": False,
        "eos_token": "<|im_end|>",
        "errors": "replace",
        "model_max_length": 131072,
        "pad_token": "<|endoftext|>",
        "split_special_tokens": False,
        "tokenizer_class": "Qwen2Tokenizer",
        "unk_token": None,
    }


def _added_token(content: str) -> dict[str, object]:
    plain = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False}
    return {"content": content, **plain, "special": _is_special(content)}


def _is_special(token: str) -> bool:
    """Qwen3 adds the tool, think and fill-in-the-middle tokens as ordinary ones."""
    plain = ("<tool", "</tool", "<think", "</think", "<|fim_", "<|repo_name", "<|file_sep")
    return not token.startswith(plain)


def _pair(merge: str | list[str]) -> tuple[str, str]:
    left, right = merge.split(" ") if isinstance(merge, str) else merge
    return left, right


def _write_json(path: Path, value: object, indent: int | None = None) -> None:
    path.write_text(json.dumps(value, ensure_ascii=False, indent=indent), encoding="utf-8")
