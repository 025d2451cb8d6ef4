"""One mark for a tokenizer, by which services find out that they mean the same by the same ids. Knows no model."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping


def tokenizer_fingerprint(vocabulary: Mapping[bytes, int], merges: Iterable[tuple[bytes, bytes]]) -> str:
    """SHA-256 of the ordinary tokens by id and of the merges in order; tokenizers that differ only in special tokens
    can exchange ids and have the same."""
    digest = hashlib.sha256()
    for token, index in sorted(vocabulary.items(), key=lambda item: item[1]):
        digest.update(json.dumps([index, token.hex()]).encode())
    for left, right in merges:
        digest.update(json.dumps([left.hex(), right.hex()]).encode())
    return digest.hexdigest()
