"""What the talker's references cover: random checkpoints, and on each every mode, layout, language rule and batch size.

Plain data, importable in the reference environment and in the project's alike; tests/tts_lm/test_parity.py reads the
same list.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Checkpoint:
    """Arguments of `cli.checkpoint.random.write_random`."""

    name: str
    type: str
    seed: int
    like: str = "tiny"
    overrides: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Line:
    """One utterance of a case. `reference_frames` 0 is the speaker vector alone."""

    text: str
    language: str = "Auto"
    voice: str = ""
    instruct: str = ""
    reference_frames: int = 0
    reference_text: str = ""


@dataclass(frozen=True)
class Case:
    """Lines generated as one batch, greedily: at most `frames` frames each, `do_sample` off for both models."""

    name: str
    lines: tuple[Line, ...]
    layout: str = "streaming"
    frames: int = 10


_SQUARE = {"talker_config": {"hidden_size": 48}, "code_predictor_config": {"hidden_size": 48}}
_HEADS = {"talker_config": {"num_attention_heads": 6, "num_key_value_heads": 2, "num_hidden_layers": 4}}
_BOOKS = {"talker_config": {"num_code_groups": 8}}
_ONE_KV = {"talker_config": {"num_attention_heads": 3, "num_key_value_heads": 1, "head_dim": 16, "rope_theta": 10000.0}}

CHECKPOINTS = (
    Checkpoint("custom-a", "custom_voice", 1),
    Checkpoint("custom-b", "custom_voice", 2, overrides=_SQUARE),
    Checkpoint("custom-small", "custom_voice", 3, overrides={"tts_model_size": "0b6"} | _HEADS),
    Checkpoint("custom-books", "custom_voice", 4, overrides=_BOOKS),
    Checkpoint("design-a", "voice_design", 5),
    Checkpoint("design-b", "voice_design", 6, overrides=_ONE_KV),
    Checkpoint("base-a", "base", 7),
    Checkpoint("base-b", "base", 8, overrides=_SQUARE),
    Checkpoint("base-c", "base", 9, overrides=_HEADS),
)
REAL = Checkpoint("real-0.6B", "custom_voice", 10, like="0.6B")

_HELLO, _SHORT = "Hello world. How are you today?", "Yes."
_LONG = "The train leaves at seven, so we should be at the station before half past six; don't be late!\nGood, 2026."
_CHINESE, _GERMAN = "你好，今天天气很好，我们一起去公园吧。", "Guten Morgen, das Wetter ist schön."
_CALM = "Speak with a calm and friendly voice."

_CUSTOM = (
    Case("one", (Line(_HELLO, "English", "Ryan"),)),
    Case("auto", (Line(_SHORT, "Auto", "vivian"),)),
    Case("dialect-auto", (Line(_CHINESE, "Auto", "Eric", _CALM),)),
    Case("dialect-chinese", (Line(_CHINESE, "chinese", "DYLAN"),), "whole"),
    Case("dialect-unused", (Line(_GERMAN, "German", "eric", _CALM),), "whole"),
    Case("long", (Line(_LONG, "English", "serena"),), frames=60),
    Case(
        "batch-4",
        (
            Line(_LONG, "English", "ryan", _CALM),
            Line(_SHORT, "Auto", "eric"),
            Line(_CHINESE, "Chinese", "vivian", "慢慢地说。"),
            Line(_GERMAN, "German", "sohee"),
        ),
    ),
    Case(
        "batch-3-whole",
        tuple(Line(t, "Auto", "aiden", i) for t, i in ((_LONG, ""), (_SHORT, _CALM), (_CHINESE, ""))),
        "whole",
    ),
)
_DESIGN = (
    Case("bare", (Line(_HELLO, "English"),)),
    Case("instruct", (Line(_HELLO, "Auto", "", _CALM),)),
    Case("instruct-whole", (Line(_CHINESE, "Chinese", "", _CALM),), "whole"),
    Case("bare-whole", (Line(_SHORT, "Auto"),), "whole"),
    Case("long", (Line(_LONG, "English", "", _CALM),), frames=60),
    Case("batch-3", (Line(_LONG, "English", "", _CALM), Line(_SHORT), Line(_GERMAN, "German", "", "slowly"))),
    Case("batch-2-whole", (Line(_SHORT, "Spanish", "", _CALM), Line(_LONG)), "whole"),
)
_SAID = "Good morning. I am fine, thank you."
_BASE = (
    Case("vector", (Line(_HELLO, "English"),)),
    Case("vector-whole", (Line(_CHINESE, "Auto"),), "whole"),
    Case("icl-short", (Line(_HELLO, "English", reference_frames=3, reference_text=_SAID),)),
    Case("icl-long", (Line(_SHORT, "Auto", reference_frames=40, reference_text=_SAID),)),
    Case("icl-equal", (Line(_GERMAN, "German", reference_frames=12, reference_text="Ja, gut."),)),
    Case("icl-whole", (Line(_LONG, "Chinese", reference_frames=9, reference_text=_SAID),), "whole"),
    Case("long", (Line(_LONG, "English"),), frames=60),
    Case("batch-vector-3", (Line(_LONG, "English"), Line(_SHORT), Line(_CHINESE, "Chinese"))),
    Case(
        "batch-mixed-3",
        (
            Line(_HELLO, "English", reference_frames=5, reference_text=_SAID),
            Line(_SHORT),
            Line(_LONG, "Auto", reference_frames=20, reference_text="Yes, I know."),
        ),
    ),
    Case(
        "batch-icl-2-whole",
        (
            Line(_SHORT, "Auto", reference_frames=5, reference_text=_SAID),
            Line(_HELLO, "English", reference_frames=2, reference_text="Yes."),
        ),
        "whole",
    ),
)
CASES = {"custom_voice": _CUSTOM, "voice_design": _DESIGN, "base": _BASE}
REAL_CASES = (
    Case("one", (Line(_HELLO, "English", "ryan"),), frames=6),
    Case("dialect-whole", (Line(_CHINESE, "Auto", "eric"),), "whole", frames=4),
)

TEXTS = (
    _HELLO,
    _LONG,
    _CHINESE,
    _GERMAN,
    "I'll say it's DON'T, we'Ve o'clock 'tis",
    "a  b   c\t\td \n\n e\r\nf   ",
    "日本語のテキスト、안녕하세요! Доброе утро… 🎉🎉 ½ ² Ⅷ",
    "हिन्दी में नमस्ते। العربية ١٢٣ עברית",
    "e\u0301a\u0323\u0301 ﬁ Å ﷺ \u200d\u00a0x\u3000y\u0085z",
    "x<y && y>z || (a+b)*c -- !!! ... ???\n\n\n",
    "'ſ 'S 'LL 'Re 'vE 'd",
    "\u1100\u1161\u11a8 か\u3099 \u09c7\u09be =\u0338",
)
"""Texts whose token ids are stored too: contractions, whitespace, scripts, marks that compose."""
