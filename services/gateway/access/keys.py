"""API keys: who they belong to and what they allow. Only their hashes are kept.

Keys are long and random (`voicemesh` makes none; `openssl rand -hex 32` does), so one round of SHA-256 is enough: there
is nothing to guess. All are compared, each in constant time, so that the time of a refusal tells nothing.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from services.gateway.access.caller import SCOPES, TALKING, Caller
from services.gateway.access.limits import Limits

MIN_KEY_CHARACTERS = 16
_HASH = "sha256:"


class KeyRecord(BaseModel):
    """One key as the file of keys holds it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Annotated[str, Field(pattern=r"^[\w.@-]{1,64}$")]
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    scopes: tuple[str, ...] = tuple(sorted(TALKING))
    max_sessions: Annotated[int, Field(ge=1)] | None = None
    calls_per_minute: Annotated[float, Field(gt=0)] | None = None
    characters_per_minute: Annotated[float, Field(gt=0)] | None = None

    def caller(self, defaults: Limits) -> Caller:
        """Whom it lets in."""
        limits = Limits(
            self.max_sessions or defaults.max_sessions,
            self.calls_per_minute or defaults.calls_per_minute,
            self.characters_per_minute or defaults.characters_per_minute,
        )
        return Caller(self.name, frozenset(self.scopes), limits)


class KeyRing:
    """All keys that open this door."""

    def __init__(self, records: Iterable[KeyRecord], defaults: Limits) -> None:
        self._callers = [(bytes.fromhex(record.sha256), record.caller(defaults)) for record in records]

    def caller(self, key: str) -> Caller | None:
        """Whose key it is; None when it is nobody's."""
        shown = hashlib.sha256(key.encode("utf-8", "replace")).digest()
        found = None
        for digest, caller in self._callers:
            if hmac.compare_digest(digest, shown):
                found = caller
        return found

    def __len__(self) -> int:
        return len(self._callers)


def records_of_file(path: Path) -> list[KeyRecord]:
    """The keys of a YAML file: a list under `keys`. ValueError says what is wrong with it, and quotes no key."""
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ValueError(f"the file of keys {path} cannot be read ({type(error).__name__})") from None
    if not isinstance(document, dict) or set(document) != {"keys"} or not isinstance(document["keys"], list):
        raise ValueError(f"the file of keys {path} must hold a list under `keys`")
    return _distinct([_record(entry, f"key {i + 1} of {path}") for i, entry in enumerate(document["keys"])])


def records_of_text(text: str) -> list[KeyRecord]:
    """The keys of a variable: NAME=KEY or NAME=sha256:HEX, separated by commas or lines."""
    records = []
    for i, part in enumerate(filter(None, map(str.strip, text.replace("\n", ",").split(",")))):
        name, _, key = part.partition("=")
        if not key.startswith(_HASH) and len(key) < MIN_KEY_CHARACTERS:
            raise ValueError(f"key {i + 1} must be NAME=KEY with at least {MIN_KEY_CHARACTERS} random characters")
        digest = key.removeprefix(_HASH) if key.startswith(_HASH) else hashlib.sha256(key.encode()).hexdigest()
        records.append(_record({"name": name, "sha256": digest}, f"key {i + 1}"))
    return _distinct(records)


def _record(entry: object, where: str) -> KeyRecord:
    try:
        record = KeyRecord.model_validate(entry)
    except ValidationError as error:
        faults = "; ".join(f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in error.errors())
        raise ValueError(f"{where} is wrong: {faults}") from None
    unknown = set(record.scopes) - SCOPES
    if unknown:
        raise ValueError(f"{where} names unknown scopes; there are {', '.join(sorted(SCOPES))}")
    return record


def _distinct(records: list[KeyRecord]) -> list[KeyRecord]:
    if len({record.name for record in records}) < len(records):
        raise ValueError("two keys have the same name")
    return records
