"""Projected text embeddings, each computed once: a text row is then one lookup.

The table is reserved at its full size, but a row costs memory and time only when its token is first read. Owns no
decision about text.
"""

from __future__ import annotations

import torch
from torch import Tensor

from services.tts_lm.model.talker import Talker

GROUP = 1024


class TextTable:
    """Rows of T(token). `one_by_one` projects each token alone, so that its bits never depend on what came with it."""

    def __init__(self, talker: Talker, vocabulary_size: int, width: int, *, one_by_one: bool) -> None:
        self._talker, self._one_by_one = talker, one_by_one
        self._table = torch.empty(vocabulary_size, width, dtype=talker.dtype, device=talker.device)
        self._known = bytearray(vocabulary_size)

    def rows(self, ids: list[int]) -> Tensor:
        """ids → [R, H]."""
        missing = sorted({index for index in ids if not self._known[index]})
        if missing:
            self._project(missing)
        return self._table[torch.tensor(ids, device=self._table.device)]

    def _project(self, missing: list[int]) -> None:
        for group in [[index] for index in missing] if self._one_by_one else [missing]:
            where = torch.tensor(group, device=self._table.device)
            self._table[where] = self._talker.text_rows(where)
        for index in missing:
            self._known[index] = 1


def projected_text(talker: Talker, vocabulary_size: int) -> Tensor:
    """The whole table at once [vocabulary, H], for a step that looks up what it was never told about before.

    In groups of one size, so that a token's bits depend on the token alone.
    """
    ids = torch.arange(vocabulary_size, device=talker.device)
    groups = [ids[first : first + GROUP] for first in range(0, vocabulary_size, GROUP)]
    last = torch.cat([groups[-1], ids.new_zeros(GROUP - len(groups[-1]))])
    rows = [talker.text_rows(group) for group in (*groups[:-1], last)]
    return torch.cat(rows)[:vocabulary_size]
