"""The text tokenizer of a checkpoint: byte-level BPE over regex pieces, from vocab.json and merges.txt.

Knows nothing of special tokens in user text: their spellings are removed by `clean`, and what remains is always
ordinary text, so no user can write markup. Source: model document 4.1 and 4.6; equal to the reference's tokenizer by
test.
"""

from __future__ import annotations

import heapq
import unicodedata
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import regex

from common.fingerprint import tokenizer_fingerprint
from services.tts_lm.model.config import CheckpointError, read_json
from services.tts_lm.model.lookahead import Lookahead
from services.tts_lm.model.normal import check_joined

PIECE = regex.compile(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
WHITESPACE = regex.compile(r"\s*")


@lru_cache(maxsize=1)
def byte_letters() -> dict[str, int]:
    """GPT-2's printable stand-ins for bytes, letter → byte."""
    plain = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    hidden = [byte for byte in range(256) if byte not in plain]
    return {chr(b): b for b in plain} | {chr(256 + i): b for i, b in enumerate(hidden)}


class Bpe:
    """Merges by rank, lowest first and leftmost among equals, over the bytes of one piece."""

    def __init__(self, vocabulary: dict[bytes, int], merges: Sequence[tuple[bytes, bytes]]) -> None:
        self.vocabulary = vocabulary
        self.spelling = {index: token for token, index in vocabulary.items()}
        self._byte_ids = [vocabulary[bytes([b])] for b in range(256)]
        self.merged = {left + right: vocabulary[left + right] for left, right in merges}
        self._ranks: dict[tuple[int, int], tuple[int, int]] = {}
        for rank, (left, right) in enumerate(merges):
            pair = vocabulary[left], vocabulary[right]
            self._ranks.setdefault(pair, (rank, vocabulary[left + right]))
        self.encode = lru_cache(maxsize=16384)(self._encode)

    def _encode(self, piece: bytes) -> tuple[int, ...]:
        """Token ids of one piece: a heap of candidate merges over a linked list, so long pieces stay near-linear."""
        ids: list[int | None] = [self._byte_ids[b] for b in piece]
        size = len(ids)
        after, before = list(range(1, size + 1)), list(range(-1, size - 1))
        heap: list[tuple[int, int, int, int, int]] = []

        def offer(left: int, right: int) -> None:
            if left < 0 or right >= size:
                return
            a, b = ids[left], ids[right]
            assert a is not None, "a merged part was offered"
            assert b is not None, "a merged part was offered"
            found = self._ranks.get((a, b))
            if found is not None:
                heapq.heappush(heap, (found[0], left, a, b, found[1]))

        for i in range(size - 1):
            offer(i, i + 1)
        while heap:
            _, left, a, b, merged = heapq.heappop(heap)
            right = after[left]
            if ids[left] != a or right >= size or ids[right] != b:
                continue  # one of the two was merged meanwhile
            ids[left], ids[right] = merged, None
            after[left] = after[right]
            if after[left] < size:
                before[after[left]] = left
            offer(before[left], left)
            offer(left, after[left])
        return tuple(index for index in ids if index is not None)


class Tokenizer:
    """Ordinary text → ids, and the few special tokens by name."""

    def __init__(self, bpe: Bpe, special: dict[str, int], merges_digest: str) -> None:
        self.bpe, self.special, self.fingerprint = bpe, special, merges_digest
        spellings = sorted(special, key=len, reverse=True)
        self._special = regex.compile("|".join(map(regex.escape, spellings))) if spellings else None
        self._spellings = tuple(spellings)
        self._longest_spelling = len(spellings[0]) if spellings else 0
        self.lookahead = Lookahead(bpe)

    @property
    def ordinary_count(self) -> int:
        return len(self.bpe.vocabulary)

    def is_ordinary(self, index: int) -> bool:
        return index in self.bpe.spelling

    def clean(self, text: str) -> str:
        """Remove special-token spellings in one pass; what joining their neighbours spells is ordinary text."""
        return self._special.sub("", text) if self._special else text

    def clean_begun(self, text: str) -> tuple[str, str]:
        """`clean` for text that goes on: what is settled, and the raw suffix that may become a spelling."""
        found = list(self._special.finditer(text)) if self._special else []
        end = found[-1].end() if found else 0
        near = max(end, len(text) - self._longest_spelling)
        keep = next((i for i in range(near, len(text)) if self._begins_spelling(text[i:])), len(text))
        return self.clean(text[:keep]), text[keep:]

    def _begins_spelling(self, text: str) -> bool:
        return any(spelling.startswith(text) for spelling in self._spellings)

    def encode(self, text: str) -> tuple[int, ...]:
        """Ids of `text` as ordinary text, whatever it spells. `InvalidRequest` for a flood of combining characters."""
        check_joined(text)
        text = unicodedata.normalize("NFC", text)
        return tuple(i for piece in PIECE.findall(text) for i in self.bpe.encode(piece.encode("utf-8")))

    def role(self) -> tuple[int, ...]:
        """`<|im_start|>assistant\\n`."""
        return (self.special["<|im_start|>"], *self.encode("assistant\n"))

    def instruct(self, text: str) -> tuple[int, ...]:
        """`<|im_start|>user\\n{text}<|im_end|>\\n`, every token of it."""
        start, end = self.special["<|im_start|>"], self.special["<|im_end|>"]
        return (start, *self.encode(f"user\n{self.clean(text)}"), end, *self.encode("\n"))

    def target(self, text: str) -> tuple[int, ...]:
        """Ids of the text to speak, or of a reference text, without the markup around it."""
        return self.encode(strip(self.clean(text)))


def strip(text: str) -> str:
    """Without leading whitespace, which would merge with the role's newline and shift every token (model document
    4.1).
    """
    match = WHITESPACE.match(text)
    return text[match.end() :] if match else text


def load_tokenizer(directory: Path) -> Tokenizer:
    """Read vocab.json, merges.txt and the added tokens; raises `CheckpointError` with a sentence."""
    letters = byte_letters()

    def spell(token: str) -> bytes | None:
        return bytes(letters[c] for c in token) if all(c in letters for c in token) else None

    raw = read_json(directory / "vocab.json")
    special = _special_tokens(directory)
    vocabulary = {
        spelled: int(i) for token, i in raw.items() if token not in special and (spelled := spell(token)) is not None
    }
    merges = _merges(directory / "merges.txt", spell)
    try:
        bpe = Bpe(vocabulary, merges)
    except KeyError as error:
        raise CheckpointError(f"{directory}: merges.txt needs {error.args[0]!r}, which vocab.json lacks") from error
    for name in ("<|im_start|>", "<|im_end|>"):
        if name not in special:
            raise CheckpointError(f"{directory / 'tokenizer_config.json'} has no {name}")
    return Tokenizer(bpe, special, tokenizer_fingerprint(vocabulary, merges))


def _special_tokens(directory: Path) -> dict[str, int]:
    added = read_json(directory / "tokenizer_config.json").get("added_tokens_decoder", {})
    return {str(entry["content"]): int(index) for index, entry in added.items()}


def _merges(path: Path, spell: object) -> list[tuple[bytes, bytes]]:
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}") from error
    assert callable(spell)
    pairs = [line.split(" ") for line in lines if line and not line.startswith("#version")]
    wrong = next((pair for pair in pairs if len(pair) != 2), None)
    if wrong is not None:
        raise CheckpointError(f"{path}: {' '.join(wrong)!r} is not a pair")
    return [(spell(left), spell(right)) for left, right in pairs]
