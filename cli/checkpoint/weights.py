"""Random values for every tensor, scaled so that a random model behaves like one that could be listened to.

Activations stay O(1) through every layer, logits have real spread (greedy codes differ from frame to frame and with the
text), the end of speech is reached within some dozens of frames, and the sound is neither silent nor clipped: measured
with qwen-tts 0.1.1 on tiny checkpoints of all three types. Values depend on the seed and the tensor's name alone, so
any tensor can be made again without the others.
"""

from __future__ import annotations

import math
import re
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float32]
Shape = tuple[int, ...]

_CHUNK_VALUES = 1 << 22
"""Values made at once (16 MiB of float32): a 311 M embedding must not be held whole."""
_POOL_VALUES, _QUICK_VALUES = (1 << 22) + 4099, 1 << 17
"""Of `quick_values`: its pool, odd so that no row of a matrix soon meets itself; a chunk that stays in the cache."""


@dataclass(frozen=True)
class Recipe:
    """mean + std · N(0, 1); std is divided by √fan-in when `fan_in`, rows have exactly that norm when `exact`."""

    mean: float = 0.0
    std: float = 1.0
    fan_in: bool = False
    exact: bool = False


def _matrix(gain: float, exact: bool = False) -> Recipe:
    return Recipe(std=gain, fan_in=True, exact=exact)


# First match wins. Gains after a SiLU, GELU or ReLU are above 1 because those halve the power.
_RECIPES: tuple[tuple[str, Recipe], ...] = (
    (r"\.initialized$", Recipe(mean=1.0, std=0.0)),
    # language model
    (r"text_embedding\.weight$", Recipe(std=1.0)),
    (r"text_projection\.linear_fc2\.weight$", _matrix(1.7)),
    (r"talker\.model\.codec_embedding\.weight$", Recipe(std=0.6)),
    (r"code_predictor\.model\.codec_embedding\.\d+\.weight$", Recipe(std=0.3)),
    (r"(codec_head|lm_head\.\d+)\.weight$", _matrix(3.0)),
    (r"\.(q|k)_norm\.weight$", Recipe(mean=1.2, std=0.1)),
    (r"(o_proj|down_proj|fc2)\.weight$", _matrix(1.2)),
    # speaker encoder: its input is a log-mel of about -11 to 2, hence the small first gain
    (r"speaker_encoder\.blocks\.0\.conv\.weight$", _matrix(0.3)),
    (r"speaker_encoder\.fc\.weight$", _matrix(0.5)),
    (r"speaker_encoder\..*\.weight$", _matrix(1.3)),
    # codec decoder
    (r"decoder\..*\.(alpha|beta)$", Recipe(std=0.3)),
    (r"layer_scale\.scale$", Recipe(mean=0.4, std=0.1)),
    (r"\.gamma$", Recipe(mean=0.5, std=0.1)),
    (r"decoder\.upsample\.\d+\.1\.pwconv2\.weight$", _matrix(1.6)),
    (r"decoder\.decoder\.\d+\.block\.[234]\.conv2\.conv\.weight$", _matrix(0.4, exact=True)),
    (r"decoder\.decoder\.\d+\.block\.\d+\.conv1\.conv\.weight$", _matrix(0.8, exact=True)),
    (r"decoder\.decoder\.\d+\.block\.1\.conv\.weight$", _matrix(0.8, exact=True)),
    (r"decoder\.decoder\.0\.conv\.weight$", _matrix(1.0, exact=True)),
    (r"decoder\.decoder\.\d+\.conv\.weight$", _matrix(0.08, exact=True)),
    # codec encoder: gains against the shrinking of ELU
    (r"encoder\.encoder\.layers\.\d+\..*\.weight$", _matrix(1.3)),
    # everything else
    (r"norm\.weight$", Recipe(mean=1.0, std=0.1)),
    (r"layernorm\.weight$", Recipe(mean=1.0, std=0.1)),
    (r"\.bias$", Recipe(std=0.05)),
    (r"\.weight$", _matrix(1.0)),
)
_COMPILED = tuple((re.compile(pattern), recipe) for pattern, recipe in _RECIPES)

_CODEBOOK = re.compile(
    r"(?:decoder\.quantizer\.rvq_(?P<d>first|rest)\.vq\.layers\.(?P<di>\d+)\._codebook"
    r"|encoder\.quantizer\.(?P<e>semantic|acoustic)_residual_vector_quantizer\.layers\.(?P<ei>\d+)\.codebook)"
    r"\.(?P<field>embedding_sum|embed_sum|cluster_usage)$"
)


def values(seed: int, eos_row: int) -> Callable[[str, Shape], Iterator[Array]]:
    """The filler of one checkpoint: (name, shape) → float32 chunks in row-major order.

    `eos_row` is the row of codec_head that ends speech; it is made large enough to win a few samples in a hundred.
    """

    def fill(name: str, shape: Shape) -> Iterator[Array]:
        codebook = _CODEBOOK.match(name)
        if codebook:
            yield _codebook_values(seed, codebook, shape)
        elif name == "talker.codec_head.weight":
            yield _codec_head(seed, name, shape, eos_row)
        else:
            yield from _by_recipe(seed, name, shape, _recipe(name))

    return fill


def quick_values(seed: int, eos_row: int) -> Callable[[str, Shape], Iterator[Array]]:
    """The same in a fraction of the time, for benchmarks that need size and scale alone: large tensors are cut from one
    pool of draws, each at a place of its own, and repeat it where they are larger than it."""
    exact, pool = values(seed, eos_row), _generator(seed, "pool").standard_normal(_POOL_VALUES, dtype=np.float32)

    def fill(name: str, shape: Shape) -> Iterator[Array]:
        recipe, total = (None if _CODEBOOK.match(name) else _recipe(name)), math.prod(shape)
        if recipe is None or recipe.exact or total < _QUICK_VALUES or name == "talker.codec_head.weight":
            yield from exact(name, shape)
            return
        std = np.float32(recipe.std / math.sqrt(_fan_in(name, shape)) if recipe.fan_in else recipe.std)
        at = zlib.crc32(name.encode()) % _POOL_VALUES
        while total:
            chunk = pool[at : at + min(total, _QUICK_VALUES)] * std + np.float32(recipe.mean)
            yield chunk
            total, at = total - chunk.size, (at + chunk.size) % _POOL_VALUES

    return fill


def _recipe(name: str) -> Recipe:
    return next(recipe for pattern, recipe in _COMPILED if pattern.search(name))


def _by_recipe(seed: int, name: str, shape: Shape, recipe: Recipe) -> Iterator[Array]:
    rng, total = _generator(seed, name), math.prod(shape)
    if recipe.exact:
        yield _exact_rows(rng, name, shape, recipe.std)
        return
    std = np.float32(recipe.std / math.sqrt(_fan_in(name, shape)) if recipe.fan_in else recipe.std)
    for start in range(0, total, _CHUNK_VALUES):
        chunk = rng.standard_normal(min(_CHUNK_VALUES, total - start), dtype=np.float32)
        yield chunk * std + np.float32(recipe.mean)


def _fan_in(name: str, shape: Shape) -> int:
    """Inputs that one output sums; upsample.*.0 is a ConvTranspose (in x out x kernel) with one tap per output."""
    if re.search(r"decoder\.upsample\.\d+\.0\.conv\.weight$", name):
        return shape[0]
    return math.prod(shape[1:])


def _exact_rows(rng: np.random.Generator, name: str, shape: Shape, gain: float) -> Array:
    """Convolutions of few channels: exact norms, since chance would make some seeds silent and others clip."""
    weight = rng.standard_normal(shape, dtype=np.float32)
    axes, outputs_per_norm = (1, 2), 1
    if ".block.1." in name:  # ConvTranspose, kernel = 2 · stride: each output sums two taps of every input channel
        axes, outputs_per_norm = (0, 2), shape[2] // 2
    elif shape[0] == 1:  # the last one: without a constant part, or the snakes' positive mean is all one hears
        weight -= weight.mean(axis=2, keepdims=True)
    norm = np.sqrt(np.square(weight).sum(axis=axes, keepdims=True))
    return np.asarray(weight * (gain * math.sqrt(outputs_per_norm) / norm), np.float32)


def _codec_head(seed: int, name: str, shape: Shape, eos_row: int) -> Array:
    recipe = _recipe(name)
    head = np.concatenate(list(_by_recipe(seed, name, shape, recipe))).reshape(shape)
    # The largest of n normal logits lies near √(2 ln n) deviations; this makes eos win a few samples in a hundred.
    codes = shape[0] - 1024
    head[eos_row] *= math.sqrt(2 * math.log(codes)) / 1.75
    return head


def _codebook_values(seed: int, match: re.Match[str], shape: Shape) -> Array:
    """Sums and usages of one codebook; encoder and decoder hold the same codebooks, as in the published file."""
    first = match["d"] == "first" or match["e"] == "semantic"
    index = int(match["di"] or match["ei"])
    key = f"codebook.{'first' if first else 'rest'}.{index}"
    usage = _generator(seed, f"{key}.usage").uniform(0.5, 4.0, shape[0]).astype(np.float32)
    if match["field"] == "cluster_usage":
        return usage
    # Later residuals are smaller, but all must be heard: 0.5 down to 0.2 over the fifteen that are used.
    std = 1.0 if first else max(0.5 * 0.94**index, 0.2)
    entries = _generator(seed, f"{key}.entries").standard_normal(shape, dtype=np.float32) * np.float32(std)
    return entries * usage[:, None]


def _generator(seed: int, key: str) -> np.random.Generator:
    return np.random.Generator(np.random.SFC64(np.random.SeedSequence([seed, zlib.crc32(key.encode())])))
