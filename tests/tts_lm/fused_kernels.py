"""The talker's Triton kernels at the real 0.6B dimensions, as `tests/ahead_of_time.py` compiles them."""

from __future__ import annotations

from tests.ahead_of_time import Compiled

_PRODUCT = "services.tts_lm.fused.product"
_ATTENTION = "services.tts_lm.fused.attention"
_SAMPLING = "services.tts_lm.fused.sampling"
_TILE = {"BIASED": False, "ROWS": 16, "OUTPUTS": 16, "INPUTS": 128}
_PRODUCT_TYPES = {
    "weight_ptr": "*bf16",
    "norm_ptr": "*bf16",
    "bias_ptr": "*bf16",
    "out_ptr": "*bf16",
    "row_count": "i32",
    "eps": "fp32",
}
_HEADS = {"HEADS": 16, "KV_HEADS": 8, "WIDTH": 128, "HALF": 64}
_ATTENTION_TYPES = {
    **dict.fromkeys(("qkv_ptr", "norm_ptr", "key_ptr", "value_ptr", "out_ptr"), "*bf16"),
    **dict.fromkeys(("position_ptr", "target_ptr", "table_ptr"), "*i64"),
    "table_stride": "i32",
    "stretch_count": "i32",
    "eps": "fp32",
    "scale": "fp32",
}
_SAMPLING_TYPES = {
    "uniform_ptr": "*fp64",
    **dict.fromkeys(("slot_ptr", "masked_ptr", "out_ptr", "state_ptr"), "*i64"),
    **dict.fromkeys(("seen_ptr", "suppressed_ptr"), "*u8"),
    "table_ptr": "*bf16",
    **dict.fromkeys(("first_setting", "codebook", "table_offset", "eos", "code_count"), "i32"),
}


def _product(normed: bool, gated: bool, added: bool, x: str = "*fp32") -> Compiled:
    parts = {"NORMED": normed, "GATED": gated, "ADDED": added}
    options = {"num_warps": 4, "num_stages": 4}
    sizes = {"IN": 1024, "OUT": 3072}
    return Compiled(f"{_PRODUCT}.product_kernel", sizes | parts | _TILE, _PRODUCT_TYPES | {"x_ptr": x}, options)


def _attention(is_one: bool, alone: bool, page: int = 64) -> Compiled:
    block = {"GROUP": 2, "PAGE": page, "BLOCK": min(32, page), "STRETCH_PAGES": 256 // page}
    pages = block | {"IS_ONE": is_one, "ALONE": alone}
    return Compiled(f"{_ATTENTION}.attention_kernel", _HEADS | pages, _ATTENTION_TYPES)


def _sample(size: int, is_talker: bool) -> Compiled:
    following = {"HAS_NEXT": True, "NEXT": 1024, "NEXT_BLOCK": 1024}
    block = {"SIZE": size, "BLOCK": 4096 if size > 2048 else 2048, "Q": 16, "IS_TALKER": is_talker}
    return Compiled(f"{_SAMPLING}.sample_kernel", block | following, _SAMPLING_TYPES)


COMPILED = [
    _product(normed=True, gated=False, added=False),
    _product(normed=True, gated=True, added=False),
    _product(normed=False, gated=False, added=True, x="*bf16"),
    Compiled(f"{_PRODUCT}.norm_kernel", {"WIDTH": 1024, "BLOCK": 1024}, {"weight_ptr": "*bf16", "eps": "fp32"}),
    _attention(is_one=True, alone=True),
    _attention(is_one=False, alone=True),
    _attention(is_one=False, alone=False),
    _attention(is_one=True, alone=True, page=16),
    Compiled(f"{_ATTENTION}.keep_kernel", _HEADS, _ATTENTION_TYPES, {"num_warps": 1}),
    Compiled(
        f"{_ATTENTION}.join_kernel",
        {"HEADS": 16, "WIDTH": 128, "BLOCK": 128, "STRETCH": 256},
        _ATTENTION_TYPES,
        {"num_warps": 1},
    ),
    Compiled(
        f"{_SAMPLING}.uniform_kernel",
        {"Q": 16, "BLOCK": 16},
        {"seed_ptr": "*i64", "slot_ptr": "*i64", "frame_ptr": "*i64", "out_ptr": "*fp64"},
        {"num_warps": 1},
    ),
    _sample(3072, is_talker=True),
    _sample(2048, is_talker=False),
]
