"""Cloned voices on disk: speaker vector, reference codes and text under a name, found again by name or by content.

One directory, shared by replicas through a path (`voices add` writes it, tts_lm reads it):

    content/<sha256 of what the voice is>.json     the voice; never changed once written
    names/<sha256 of the folded name>.json         {"name": as written, "voice_id": which content}

Files are written whole under another name and then renamed, so a reader never sees half of one, whoever dies when.
File names are hashes, so no name can lead out of the directory. Knows no model: whether a vector fits one is the
model's to say.
"""

from __future__ import annotations

import json
import os
import unicodedata
import uuid
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from common.errors import Broken, InvalidRequest, UnknownName

MAX_NAME_CHARACTERS = 64
MAX_TEXT_CHARACTERS = 10_000


def default_directory() -> Path:
    """Where a person's voices are kept unless told otherwise, by the XDG rule."""
    data = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    return Path(data) / "voicemesh" / "voices"


@dataclass(frozen=True, slots=True)
class StoredVoice:
    """`codes`: frames of codes; `voice_id` is the content's hash, the same on every replica."""

    voice_id: str
    name: str
    speaker_vector: tuple[float, ...]
    codes: tuple[tuple[int, ...], ...]
    reference_text: str


@dataclass(frozen=True, slots=True)
class _Content:
    speaker_vector: list[float]
    codes: list[list[int]]
    reference_text: str

    def encoded(self) -> bytes:
        """One spelling, so that equal voices have equal bytes (a float's repr names exactly that float)."""
        return json.dumps(asdict(self), ensure_ascii=False, sort_keys=True, separators=(",", ":")).encode()


class VoiceStore:
    """Nothing is kept in memory: what another replica has added is there at the next look."""

    def __init__(self, directory: str | Path) -> None:
        self._content = Path(directory) / "content"
        self._names = Path(directory) / "names"

    def add(
        self, name: str, speaker_vector: Sequence[float], codes: Sequence[Sequence[int]], reference_text: str
    ) -> StoredVoice:
        """Keep a voice under a name; a name used before means the new voice from now on.

        InvalidRequest: a name that is empty, longer than 64 characters or not printable, codes of unequal width, no
        vector and no codes, a text of more than 10 000 characters.
        """
        name = checked_name(name)
        content = _Content([float(x) for x in speaker_vector], [[int(c) for c in f] for f in codes], reference_text)
        _check(content)
        encoded = content.encoded()
        voice_id = sha256(encoded).hexdigest()
        target = self._content / f"{voice_id}.json"
        if not target.exists():
            _write(target, encoded)
        _write(self._name_path(name), json.dumps({"name": name, "voice_id": voice_id}, ensure_ascii=False).encode())
        return _voice(voice_id, name, content)

    def get(self, name_or_id: str) -> StoredVoice:
        """By name (any case) or by voice_id. UnknownName when there is none, Broken when its file is damaged."""
        entry = self._entry(name_or_id)
        if entry is not None:
            return _voice(entry["voice_id"], entry["name"], self._read(entry["voice_id"]))
        if _is_id(name_or_id) and (self._content / f"{name_or_id}.json").exists():
            return _voice(name_or_id, "", self._read(name_or_id))
        raise UnknownName("No stored voice of that name.", name=name_or_id[:MAX_NAME_CHARACTERS])

    def find(self, name: str) -> StoredVoice | None:
        """By name (any case) or by voice_id; None when there is none. Broken when its file is damaged."""
        try:
            return self.get(name)
        except UnknownName:
            return None

    def names(self) -> list[str]:
        """Every name, as written, in alphabetical order."""
        return sorted((_load(path)["name"] for path in self._names.glob("*.json")), key=str.casefold)

    def remove(self, name: str) -> None:
        """Forget a name; the content stays for whoever holds its id. UnknownName when there is none."""
        try:
            self._name_path(name).unlink()
        except FileNotFoundError:
            raise UnknownName("No stored voice of that name.", name=name[:MAX_NAME_CHARACTERS]) from None

    def _entry(self, name: str) -> dict[str, Any] | None:
        try:
            return _load(self._name_path(name))
        except FileNotFoundError:
            return None

    def _read(self, voice_id: str) -> _Content:
        path = self._content / f"{voice_id}.json"
        try:
            encoded = path.read_bytes()
        except FileNotFoundError:
            raise Broken(f"The voice store lost {path.name}.") from None
        if sha256(encoded).hexdigest() != voice_id:
            raise Broken(f"{path.name} in the voice store is damaged.")
        return _Content(**json.loads(encoded))

    def _name_path(self, name: str) -> Path:
        return self._names / f"{sha256(_folded(name).encode('utf-8', 'replace')).hexdigest()}.json"


def checked_name(name: str) -> str:
    """The name without the space around it. InvalidRequest when it could not be shown, spoken of or typed again."""
    name = unicodedata.normalize("NFC", name.strip())
    if not name:
        raise InvalidRequest("A voice needs a name.")
    if len(name) > MAX_NAME_CHARACTERS:
        raise InvalidRequest(f"A voice's name has at most {MAX_NAME_CHARACTERS} characters.")
    if not name.isprintable() or any(c in "/\\" for c in name) or name.startswith("."):
        raise InvalidRequest("A voice's name is printable, holds no slash and does not begin with a dot.")
    if _is_id(name):
        raise InvalidRequest("A voice's name must not look like a voice_id.")
    return name


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", name.strip()).casefold()


def _is_id(text: str) -> bool:
    return len(text) == 64 and set(text) <= set("0123456789abcdef")


def _check(content: _Content) -> None:
    if not content.speaker_vector and not content.codes:
        raise InvalidRequest("A voice is a speaker vector, reference codes, or both.")
    if len({len(frame) for frame in content.codes}) > 1:
        raise InvalidRequest("Every frame of a voice has the same number of codes.")
    if len(content.reference_text) > MAX_TEXT_CHARACTERS:
        raise InvalidRequest(f"The reference text has at most {MAX_TEXT_CHARACTERS} characters.")
    if any("\ud800" <= character <= "\udfff" for character in content.reference_text):
        raise InvalidRequest("The reference text is not valid Unicode.")
    if any(x != x or abs(x) == float("inf") for x in content.speaker_vector):
        raise InvalidRequest("The speaker vector holds values that are not numbers.")


def _voice(voice_id: str, name: str, content: _Content) -> StoredVoice:
    codes = tuple(tuple(frame) for frame in content.codes)
    return StoredVoice(voice_id, name, tuple(content.speaker_vector), codes, content.reference_text)


def _load(path: Path) -> dict[str, Any]:
    entry: dict[str, Any] = json.loads(path.read_bytes())
    return entry


def _write(target: Path, content: bytes) -> None:
    """Whole or not at all, and on the disk before its name is."""
    target.parent.mkdir(parents=True, exist_ok=True)
    draft = target.with_name(f".{target.name}.{uuid.uuid4().hex}")
    try:
        with open(draft, "xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(draft, target)
    finally:
        draft.unlink(missing_ok=True)
