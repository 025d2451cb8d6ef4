"""Early release of tokens is exact: what is released never changes, and what is held could still change."""

from __future__ import annotations

import itertools
import random
import unicodedata
from collections import deque
from functools import cache
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cli.checkpoint.random import write_random
from common.errors import InvalidRequest
from services.tts_lm.model.streaming_text import StreamingText
from services.tts_lm.model.tokenizer import Bpe, Tokenizer, load_tokenizer

SCRIPTS = (
    "Hello world. How are you? I'll say it's DON'T, we'Ve o'clock ",
    "你好，今天天气很好，我们一起去公园吧。请你慢慢地说，我在听",
    "こんにちは、今日はいい天気ですね。が\u3099か\u3099ハ\u309a",
    "안녕하세요, 오늘 날씨가 참 좋네요. \u1100\u1161\u11a8 가\u11a8",
    "Доброе утро, как дела? й и\u0306",
    "हिन्दी में नमस्ते। क\u093c ো\u09c7\u09be",
    "e\u0301a\u0323\u0301 ﬁ Å o\u0332\u0301 x\u0327\u0301 =\u0338 schön",
    "a  b   c\t\td \n\n e\r\nf \u3000\u00a0x\u0085y ",
    "x<y && z>w || <|im_end|> <tts_pad> <|im_ !!! ... ???\n\n 3.14 2026",
    "🎉🎉 👩\u200d👩 ½ ² Ⅷ ١٢٣",
)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    return load_tokenizer(write_random(tmp_path_factory.mktemp("checkpoint"), "tiny", "custom_voice", 0))


def pieces_of(text: str, cuts: list[int]) -> list[str]:
    edges = [0, *sorted({min(c, len(text)) for c in cuts}), len(text)]
    return [text[a:b] for a, b in itertools.pairwise(edges)]


texts = st.lists(st.sampled_from([c for s in SCRIPTS for c in (*s, s)]), max_size=12).map("".join)


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=texts, cuts=st.lists(st.integers(0, 200), max_size=12))
def test_released_tokens_equal_those_of_the_whole_text(tokenizer: Tokenizer, text: str, cuts: list[int]) -> None:
    stream = StreamingText(tokenizer)
    released = [i for delta in pieces_of(text, cuts) for i in stream.feed(delta)]

    assert (*released, *stream.finish()) == tokenizer.target(text)


@pytest.mark.parametrize("script", range(len(SCRIPTS)))
def test_character_by_character_equals_the_whole_text(tokenizer: Tokenizer, script: int) -> None:
    generator = random.Random(script)
    for _ in range(20):
        text = "".join(generator.choices(SCRIPTS[script], k=30))
        stream = StreamingText(tokenizer)
        assert (*(i for c in text for i in stream.feed(c)), *stream.finish()) == tokenizer.target(text)


def small_tokenizer(seed: int, alphabet: str, merge_count: int, longest: int) -> Tokenizer:
    """A random byte-level BPE over `alphabet`: any pair may merge, whatever its rank, unlike trained ones."""
    generator = random.Random(seed)
    vocabulary = {bytes([b]): b for b in range(256)}
    known = sorted({bytes([b]) for b in alphabet.encode()})
    merges: list[tuple[bytes, bytes]] = []
    while len(merges) < merge_count:
        left, right = generator.choice(known), generator.choice(known)
        if len(left + right) <= longest and left + right not in vocabulary:
            merges.append((left, right))
            vocabulary[left + right] = 256 + len(merges)
            known.append(left + right)
    return Tokenizer(Bpe(vocabulary, merges), {"<s>": 10_000}, "")


def tails_over(letters: str, depth: int) -> list[str]:
    """Continuations: over the alphabet, then with a mark (any letter may still get one), then with a neighbour that
    shares the first bytes of a letter (tokens may end inside a character)."""
    short = ["".join(t) for n in range(3) for t in itertools.product(letters, repeat=n)]
    tails = ["".join(t) for n in range(depth + 1) for t in itertools.product(letters, repeat=n)]
    tails += [tail + mark for tail in short for mark in MARKS]
    return tails + [tail + near for tail in short for letter in letters for near in neighbours(letter)]


def neighbours(letter: str) -> list[str]:
    data = letter.encode()
    if len(data) < 3:
        return []
    last = [data[:-1] + bytes([b]) for b in range(0x80, 0xC0)]
    middle = [data[:1] + bytes([b]) + data[2:] for b in range(0x80, 0xC0)]
    return [spelled.decode(errors="ignore") for spelled in last + middle]


def common(one: tuple[int, ...], other: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(a for a, _ in itertools.takewhile(lambda ab: ab[0] == ab[1], zip(one, other, strict=False)))


MARKS = "\u0301\u0302\u0307\u030a\u030c\u0323\u0328\u0338\u093c\u3099"
ALPHABETS = {
    "letters": ("ab", 4, 5),
    "words": ("ab '", 4, 4),
    "contractions": ("'rel a", 4, 4),
    "space": (" \n\ta!", 4, 4),
    "digits": ("1 a!", 4, 4),
    "chinese": ("你好天", 9, 3),
    "accents": ("ea\u0301\u0323 ", 4, 4),
    "kana": ("かき\u3099", 7, 3),
    "spelling": ("<s>a ", 4, 4),
}


@pytest.mark.parametrize("alphabet", ALPHABETS)
@pytest.mark.parametrize("seed", range(6))
def test_exactly_what_no_continuation_changes_is_released(alphabet: str, seed: int) -> None:
    """Oracle: encode every continuation up to a length that lets any token be completed, and take what all share."""
    letters, longest, depth = ALPHABETS[alphabet]
    tokenizer = small_tokenizer(seed, letters, 24, longest)
    generator = random.Random(seed)
    tails = tails_over(letters, depth)

    @cache
    def target(text: str) -> tuple[int, ...]:
        return tokenizer.target(text)

    for _ in range(6):
        text = "".join(generator.choices(letters, k=generator.randint(1, 9)))
        stream = StreamingText(tokenizer)
        released: tuple[int, ...] = ()
        for end in range(1, len(text) + 1):
            released += stream.feed(text[end - 1])
            final = target(text[:end])
            for tail in tails:
                final = common(final, target(text[:end] + tail))
                if not final:
                    break
            # The end of the text is one continuation; a longer text agrees with all of them only in what is final.
            assert released == final, (text[:end], released, final)


def test_chinese_is_released_inside_a_clause_without_punctuation(tokenizer: Tokenizer) -> None:
    stream = StreamingText(tokenizer)
    text = "今天天气很好我们一起去公园吧请你慢慢地说我在听" * 4
    released: list[int] = []
    for i, char in enumerate(text):
        released += stream.feed(char)
        spelled = b"".join(tokenizer.bpe.spelling[t] for t in released)
        assert len(text[: i + 1].encode()) - len(spelled) <= 2 * tokenizer.lookahead.longest


def test_a_flood_without_any_boundary_stays_cheap(tokenizer: Tokenizer) -> None:
    for char in (" ", "a", "你", "!", "\n"):
        stream = StreamingText(tokenizer)
        released: list[int] = []
        for _ in range(3000):
            released += stream.feed(char)
        assert (*released, *stream.finish()) == tokenizer.target(char * 3000)


def test_special_spellings_are_removed_once_and_never_become_control_tokens(tokenizer: Tokenizer) -> None:
    assert tokenizer.target("a<|im_end|>b") == tokenizer.target("ab")
    nested = tokenizer.target("<|im_<|im_end|>end|>")
    assert nested
    assert all(tokenizer.is_ordinary(i) for i in nested)


def test_leading_whitespace_is_dropped_however_it_is_cut(tokenizer: Tokenizer) -> None:
    stream = StreamingText(tokenizer)
    assert (*stream.feed(" \n"), *stream.feed("\t"), *stream.feed(" Yes."), *stream.finish()) == tokenizer.target(
        "Yes."
    )


def test_normalisation_is_that_of_the_whole_text(tokenizer: Tokenizer) -> None:
    stream = StreamingText(tokenizer)
    ids = (*stream.feed("caf"), *stream.feed("e"), *stream.feed("\u0301"), *stream.finish())
    assert ids == tokenizer.target(unicodedata.normalize("NFC", "cafe\u0301"))


def test_the_fingerprint_ignores_special_tokens(tmp_path: Path, tokenizer: Tokenizer) -> None:
    directory = write_random(tmp_path, "tiny", "base", 3)
    config = (directory / "tokenizer_config.json").read_text()
    (directory / "tokenizer_config.json").write_text(config.replace("<tts_pad>", "<other_pad>"))
    assert load_tokenizer(directory).fingerprint == tokenizer.fingerprint
    merges = (directory / "merges.txt").read_text().rstrip("\n").rsplit("\n", 1)[0]
    (directory / "merges.txt").write_text(merges + "\n")
    assert load_tokenizer(directory).fingerprint != tokenizer.fingerprint


@pytest.mark.parametrize("cut", [1, 10_000])
@pytest.mark.parametrize("flood", ["\u0301\u0323", "\u1161", "\u11a8"])
def test_a_flood_of_combining_characters_is_refused_before_it_costs_anything(
    tokenizer: Tokenizer, flood: str, cut: int
) -> None:
    stream = StreamingText(tokenizer)
    text = "e" + flood * 30_000
    with pytest.raises(InvalidRequest, match="combining"):
        deque((stream.feed(text[begin : begin + cut]) for begin in range(0, len(text), cut)), maxlen=0)
    with pytest.raises(InvalidRequest, match="combining"):
        tokenizer.target(text)


def test_a_flood_of_korean_consonants_stays_cheap(tokenizer: Tokenizer) -> None:
    text = "\u1100" * 20_000  # minutes, where each is asked which of 588 syllables it may become
    stream = StreamingText(tokenizer)
    assert (*stream.feed(text), *stream.finish()) == tokenizer.target(text)
