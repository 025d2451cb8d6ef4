"""What a voice can say, where its checkpoint says so: the characters it has learned, those that it reads as others, and
how long a text it speaks steadily.

An official checkpoint carries no such file and is given everything. A small voice that was taught one language answers
with a sentence instead of with noise. Refuses to know which language that is: the file says it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import cast

from common.errors import InvalidRequest
from services.tts_lm.model.config import CheckpointError, read_json

FILE = "repertoire.json"


@dataclass(frozen=True)
class Repertoire:
    """`characters` pass, those of `read_as` are read as the text given there, all others are refused.

    After `steady_characters` of a text its next sentence is better an utterance of its own; 0: never.
    """

    characters: frozenset[str]
    read_as: Mapping[str, str]
    speaks: str
    steady_characters: int = 0

    @cached_property
    def speakable(self) -> str:
        """All that pass or are read as others."""
        return "".join(sorted(self.characters.union(self.read_as)))

    def admit(self, text: str) -> str:
        """The text as it will be read. `InvalidRequest` names the first character that the voice never learned."""
        if self.characters.issuperset(text):
            return text
        return "".join(self._admit(character) for character in text)

    def _admit(self, character: str) -> str:
        if character in self.characters:
            return character
        if (read := self.read_as.get(character)) is not None:
            return read
        raise InvalidRequest(
            f"This voice cannot say {character!r}. It speaks {self.speaks}.",
            reason="UNSUPPORTED",
            field="text",
            character=f"U+{ord(character):04X}",
        )


def load_repertoire(directory: Path) -> Repertoire | None:
    """What the checkpoint says it can say; None when it says nothing. `CheckpointError` when that is not understood."""
    path = directory / FILE
    if not path.exists():
        return None
    found = read_json(path)
    characters, read_as, speaks = (found.get(key) for key in ("characters", "read_as", "speaks"))
    steady = found.get("steady_characters", 0)
    if not (isinstance(characters, str) and isinstance(speaks, str) and isinstance(read_as, dict)):
        raise CheckpointError(f"{path} must hold `characters` and `speaks` (strings) and `read_as` (an object)")
    if not isinstance(steady, int) or steady < 0:
        raise CheckpointError(f"{path}: `steady_characters` is a number of characters, not {steady!r}")
    pairs = cast("dict[str, object]", read_as)
    for character, read in pairs.items():
        if len(character) != 1 or not isinstance(read, str) or not set(read) <= set(characters):
            raise CheckpointError(f"{path}: {character!r} cannot be read as {read!r}")
    return Repertoire(frozenset(characters), {key: str(value) for key, value in pairs.items()}, speaks, steady)
